"""The C++ classes of include/mux.hpp, installed, in the languages and compilers they promise."""

import pytest
from conftest import CHECKOUT, LIB, WARN, run

HERE = CHECKOUT / "tests" / "packaging"
STRICT = [*WARN, "-Wshadow", "-Wconversion", "-Wnon-virtual-dtor"]


def compile_cpp(compiler, standard, prefix, program, *sources):
    run(compiler, f"-std={standard}", "-g", "-pthread", *STRICT, f"-I{prefix}/include", "-o", program, *sources,
        f"-L{prefix}/{LIB}", f"-Wl,-rpath,{prefix}/{LIB}", "-lmux")


@pytest.mark.parametrize("compiler, standard", [("g++", "c++17"), ("g++", "c++20"), ("clang++", "c++17"), ("clang++", "c++20")])
def test_the_classes_do_what_they_say(prefix, tmp_path, compiler, standard):
    program = tmp_path / "classes"
    compile_cpp(compiler, standard, prefix, program, HERE / "classes.cpp", HERE / "classes_too.cpp")
    run(program, "qmux://127.0.0.1:0")


def test_the_example_talks(prefix, tmp_path, talk):
    compile_cpp("g++", "c++17", prefix, tmp_path / "echo", CHECKOUT / "examples" / "cpp" / "echo.cpp")
    talk(tmp_path / "echo", tmp_path / "echo")
