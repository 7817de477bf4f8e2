# Compiles and runs a program with nothing but pkg-config: PKG_CONFIG VERSION COMPILER FOLDER_OF_PC SOURCE PROGRAM
set -e
export PKG_CONFIG_PATH="$4"
"$1" --exact-version="$2" shardkit
# Unquoted: the flags are words.
"$3" -std=c++20 $("$1" --cflags shardkit) "$5" $("$1" --libs shardkit) -o "$6"
"$6"
