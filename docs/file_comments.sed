# Makes the comment at the top of a header that of the file, for Doxygen. No line is added or removed.
1,/^#pragma once/ {
  /^\/\/   /!s,<\([A-Za-z]*\)>,\&lt;\1\&gt;,g
  s,^// \?,/// ,
  s,^///   ,///       ,
  s,^#pragma once,/// @file,
}
