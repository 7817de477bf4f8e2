# Conan 2 without any remote: CONAN SOURCE SCRATCH COMPILER COMPONENTS
# Creates the package and runs its test, then the test with the option of each component found here. What the recipe
# would bring from ConanCenter is declared to be the system's.
set -e
conan=$1 source=$2 scratch=$3 components=$5
rm -rf "$scratch"
mkdir -p "$scratch"
export CONAN_HOME="$scratch/home" CXX="$4"
"$conan" profile detect >/dev/null
set -- -s build_type=Debug -c tools.cmake.cmake_layout:test_folder="$scratch/consumer"
"$conan" create "$source" --no-remote "$@"

for component in mpi cblas checkpoint; do  # not testing: it takes long to compile, and the other tests have it
  case ",$components," in *",$component,"*) set -- "$@" -o "shardkit/*:$component=True" ;; esac
done
cat >>"$CONAN_HOME/profiles/default" <<END
[platform_requires]
openmpi/4.1.6
openblas/0.3.27
nlohmann_json/3.11.3
END
version=$("$conan" inspect "$source" --format json | sed -n 's/^ *"version": "\(.*\)",*$/\1/p')
"$conan" test "$source/tests/package/consumer" "shardkit/$version" --no-remote "$@"
