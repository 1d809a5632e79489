"""What is left behind is named, what nobody needs is removed, and names that some systems take for one are refused."""

from types import SimpleNamespace

import pytest

from seedvr2_engine.errors import OutputError
from seedvr2_engine.video import SinkOptions, open_sink
from seedvr2_engine.video.writing.pictures.picture_names import PictureNames


def test_old_pictures_of_a_killed_run_are_named(tmp_path):
    folder = tmp_path / "out"
    (folder / "pictures.replaced-0123abcd").mkdir(parents=True)
    (folder / "pictures.partial-0123abcd").mkdir()
    sink = open_sink(folder, width=4, height=4, options=SinkOptions(overwrite=True))
    sink.abort(keep_partial=False)
    broken, killed = sink.warnings
    assert broken.startswith("An earlier run was broken off")
    assert "pictures.partial-0123abcd" in broken
    assert killed.startswith("An earlier run was killed while it replaced")
    assert "replaced-0123abcd" in killed


@pytest.mark.parametrize("name", ["a.mp4", "a.png", "a.gif", "out"])
def test_an_output_without_frames_leaves_nothing(tmp_path, name):
    sink = open_sink(tmp_path / name, width=64, height=48)
    with pytest.raises(OutputError, match="expected at least one frame, got none; nothing was written"):
        sink.finish()
    assert list(tmp_path.iterdir()) == []
    open_sink(tmp_path / name, width=64, height=48).abort(keep_partial=False)


@pytest.mark.parametrize(("names", "is_refused"), [(("A.jpg", "a.png"), True), (("a.jpg", "b.png"), False)])
def test_names_that_differ_in_case_alone_are_one(tmp_path, names, is_refused):
    source = SimpleNamespace(pictures=names, first_frame=0, selected_frames=2)
    if is_refused:
        with pytest.raises(OutputError, match=r"found two that would become a\.png"):
            PictureNames.of(tmp_path / "out", source)
    else:
        assert PictureNames.of(tmp_path / "out", source).names == ("a.png", "b.png")
