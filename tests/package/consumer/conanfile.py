"""Conan's test_package: the consumer, with the components whose options are on."""

import os

from conan import ConanFile
from conan.tools.build import can_run
from conan.tools.cmake import CMake, CMakeDeps, CMakeToolchain, cmake_layout


class Consumer(ConanFile):
    settings = "os", "arch", "compiler", "build_type"
    test_type = "explicit"

    def requirements(self):
        self.requires(self.tested_reference_str)

    def layout(self):
        cmake_layout(self)

    def generate(self):
        options = self.dependencies["shardkit"].options
        components = [name for name, value in options.items() if value == "True"]
        toolchain = CMakeToolchain(self)
        toolchain.cache_variables["COMPONENTS"] = ",".join(components)
        toolchain.user_presets_path = False  # leaves no file in the source folder
        toolchain.generate()
        CMakeDeps(self).generate()

    def build(self):
        cmake = CMake(self)
        cmake.configure()
        cmake.build()

    def test(self):
        if can_run(self):
            self.run(os.path.join(self.cpp.build.bindir, "consumer"), env="conanrun")
