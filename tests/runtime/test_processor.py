"""Name and instructions of the processor."""

from harness.runtime import processor


def test_name_and_instructions_are_those_of_the_first_core(tmp_path):
    file = tmp_path / "cpuinfo"
    file.write_text("processor : 0\nmodel name\t: Some CPU\nflags\t\t: fpu amx_bf16\nflags : fpu\n")
    assert (processor.name(file), processor.flags(file)) == ("Some CPU", {"fpu", "amx_bf16"})
    file.write_text("processor : 0\nFeatures : fp asimd bf16\n")  # ARM
    assert processor.flags(file) == {"fp", "asimd", "bf16"}


def test_where_the_system_does_not_tell(tmp_path):
    assert processor.flags(tmp_path / "none") == set()
    assert processor.name(tmp_path / "none")
