# What the headers include, read from their text.

# The optional libraries, each with the includes that give it away.
set(third_parties
  "mpi=<mpi\\.h>" "cblas=<cblas\\.h>" "checkpoint=<nlohmann/"
  "cuda=<(cuda|cooperative_groups|nvtx)" "nccl=<nccl" "cublaslt=<cublasLt" "testing=<doctest/")

# includes_of(<header> <result>): the include lines of a header, given as shardkit/...; none where it does not exist.
function(includes_of header result)
  set(lines "")
  if(EXISTS "${include_folder}/${header}")
    file(STRINGS "${include_folder}/${header}" lines REGEX "^ *# *include *<")
  endif()
  set(${result} "${lines}" PARENT_SCOPE)
endfunction()

# third_parties_of(<header> <result>): which optional libraries it needs, itself or through other headers of ours.
function(third_parties_of header result)
  get_property(known GLOBAL PROPERTY "third_parties_${header}" SET)
  if(NOT known)
    set_property(GLOBAL PROPERTY "third_parties_${header}" "")  # ends the recursion where headers include each other
    set(needs "")
    includes_of("${header}" lines)
    foreach(line IN LISTS lines)
      foreach(third_party IN LISTS third_parties)
        string(REGEX MATCH "^([a-z]+)=(.*)$" unused "${third_party}")
        set(name ${CMAKE_MATCH_1})
        if(line MATCHES "${CMAKE_MATCH_2}")
          list(APPEND needs ${name})
        endif()
      endforeach()
      if(line MATCHES "<(shardkit/[^>]+)>")
        third_parties_of("${CMAKE_MATCH_1}" inherited)
        list(APPEND needs ${inherited})
      endif()
    endforeach()
    list(REMOVE_DUPLICATES needs)
    set_property(GLOBAL PROPERTY "third_parties_${header}" "${needs}")
  endif()
  get_property(needs GLOBAL PROPERTY "third_parties_${header}")
  set(${result} "${needs}" PARENT_SCOPE)
endfunction()

# reach(<header>): adds it and all headers of ours that it includes, at any depth, to the global property `reached`.
function(reach header)
  get_property(reached GLOBAL PROPERTY reached)
  if(header IN_LIST reached)
    return()
  endif()
  set_property(GLOBAL APPEND PROPERTY reached "${header}")
  includes_of("${header}" lines)
  foreach(line IN LISTS lines)
    if(line MATCHES "<(shardkit/[^>]+)>")
      reach("${CMAKE_MATCH_1}")
    endif()
  endforeach()
endfunction()
