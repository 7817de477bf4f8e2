# Builds and runs the consumer without CMake: COMPILER CONSUMER PROGRAM INCLUDE for a plain include folder, or
# COMPILER CONSUMER PROGRAM FOLDER_OF_PC PKG_CONFIG VERSION with pkg-config.
set -e
compiler=$1 consumer=$2 program=$3
if [ $# -eq 4 ]; then
  cflags="-I $4 -pthread" libs=-pthread
else
  export PKG_CONFIG_PATH="$4"
  "$5" --exact-version="$6" shardkit
  cflags=$("$5" --cflags shardkit) libs=$("$5" --libs shardkit)
fi
# Unquoted: the flags are words.
"$compiler" -std=c++17 $cflags -c "$consumer/engine_cxx17.cpp" -o "$program.o"
"$compiler" -std=c++20 $cflags "$consumer/main.cpp" "$program.o" $libs -o "$program"
"$program"
