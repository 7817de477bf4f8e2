"""Conan 2 recipe:  conan create . -o "&:checkpoint=True"

An option brings the library of a component from ConanCenter. Without it, find_package(shardkit COMPONENTS ...) of a user
still finds the component on the library of the system: so do mpi, where a cluster has its own, and cuda and nccl, for
which there is no recipe.
"""

import os
import re

from conan import ConanFile
from conan.tools.build import check_min_cppstd
from conan.tools.cmake import CMake, CMakeToolchain, cmake_layout
from conan.tools.files import copy, load, rmdir

required_conan_version = ">=2.0"


class Shardkit(ConanFile):
    name = "shardkit"
    description = "Collectives and sharding for data, tensor and pipeline parallelism, header only"
    license = "BSL-1.0"
    topics = ("mpi", "nccl", "cuda", "collectives", "tensor-parallelism", "header-only")
    package_type = "header-library"
    settings = "os", "arch", "compiler", "build_type"
    options = {name: [True, False] for name in ("mpi", "cblas", "checkpoint", "testing")}
    default_options = {name: False for name in options}
    exports_sources = "CMakeLists.txt", "cmake/*", "include/*", "LICENSE"
    no_copy_source = True
    test_package_folder = "tests/package/consumer"

    def set_version(self):
        text = load(self, os.path.join(self.recipe_folder, "include", "shardkit", "version.hpp"))
        self.version = ".".join(re.findall(r"#define SHARDKIT_VERSION_(?:MAJOR|MINOR|PATCH) (\d+)", text))

    def requirements(self):
        if self.options.mpi:
            self.requires("openmpi/4.1.6", transitive_headers=True, transitive_libs=True)
        if self.options.cblas:
            self.requires("openblas/0.3.27", transitive_headers=True, transitive_libs=True)
        if self.options.checkpoint:
            self.requires("nlohmann_json/3.11.3", transitive_headers=True)
        if self.options.testing:
            self.requires("doctest/2.4.11", transitive_headers=True)

    def package_id(self):
        self.info.clear()

    def validate(self):
        check_min_cppstd(self, 17)  # core/ and comm/; the rest is C++20, and so says shardkit::shardkit

    def layout(self):
        cmake_layout(self)

    def generate(self):
        toolchain = CMakeToolchain(self)
        toolchain.user_presets_path = False
        for part in ("TESTS", "EXAMPLES", "BENCHMARKS"):
            toolchain.cache_variables[f"SHARDKIT_BUILD_{part}"] = False
        toolchain.cache_variables["SHARDKIT_COMPONENTS"] = "none"
        toolchain.generate()

    def package(self):
        cmake = CMake(self)
        cmake.configure()
        cmake.install()
        copy(self, "LICENSE", self.source_folder, os.path.join(self.package_folder, "licenses"))
        rmdir(self, os.path.join(self.package_folder, "share", "licenses"))

    def package_info(self):
        # Users get shardkit's own CMake package, which has the components, and not one that Conan makes up.
        self.cpp_info.set_property("cmake_find_mode", "none")
        self.cpp_info.builddirs = [os.path.join("share", "cmake", "shardkit")]
        self.cpp_info.bindirs = []
        self.cpp_info.libdirs = []
        self.cpp_info.system_libs = ["pthread"]
