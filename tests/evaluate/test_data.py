"""Every kind of data set lists its pictures once, in one order, and opens them; anything else is refused."""

import gzip
import pickle
import struct

import numpy as np
import pytest
from PIL import Image

from npformer.evaluate import data as data_module
from npformer.evaluate import open_data_set
from npformer.evaluate.data import chosen, read_idx
from tests.evaluate.made_up import CLASSES, class_folders, picture


def idx(array, kind=0x08):
    return bytes([0, 0, kind, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def test_class_folders_are_classes_in_order_of_their_names(tmp_path):
    data = open_data_set(class_folders(tmp_path / "val", 2))
    assert data.classes == CLASSES
    assert [(item.number, item.key, item.label) for item in data] == [
        (0, "Ankle boot/0.png", 0), (1, "Ankle boot/1.png", 0), (2, "Bag/0.png", 1), (3, "Bag/1.png", 1),
        (4, "Coat/0.png", 2), (5, "Coat/1.png", 2),
    ]  # fmt: skip
    assert len(data) == 6
    np.testing.assert_array_equal(np.asarray(data.load("Bag/1.png")), np.asarray(picture(101)))


def test_only_pictures_are_listed_and_links_that_go_round_end(tmp_path):
    root = class_folders(tmp_path / "val", 1)
    (root / "Bag" / "notes.txt").write_text("no picture")
    (root / "Bag" / ".hidden.png").write_bytes(b"")
    (root / ".git").mkdir()
    (root / "Bag" / "deeper").mkdir()
    picture(7).save(root / "Bag" / "deeper" / "more.JPG")
    (root / "Bag" / "deeper" / "up").symlink_to(root / "Bag")
    (root / "Bag" / "self.png").symlink_to(root / "Bag" / "self.png")
    assert [item.key for item in open_data_set(root)] == [
        "Ankle boot/0.png", "Bag/0.png", "Bag/deeper/more.JPG", "Bag/self.png", "Coat/0.png",
    ]  # fmt: skip


def test_a_folder_with_a_label_file(tmp_path):
    root = class_folders(tmp_path / "val", 2)
    (tmp_path / "val.txt").write_text("Bag/1.png 7\n\nCoat/0.png 65\n")
    data = open_data_set(root, tmp_path / "val.txt")
    assert [tuple(item) for item in data] == [(0, "Bag/1.png", 7), (1, "Coat/0.png", 65)]
    (tmp_path / "val.txt").write_text("Bag/1.png 7\nCoat/0.png\n")
    with pytest.raises(ValueError, match=r"val\.txt, line 2: expected a path, a space and a label, got 'Coat/0\.png'"):
        list(data)


@pytest.mark.parametrize("names", [("images", "labels"), ("x_test", "y_test"), ("pictures", "classes")])
def test_an_npz(tmp_path, names):
    pictures = np.random.default_rng(0).integers(0, 256, (3, 20, 24, 3), dtype=np.uint8)
    np.savez(tmp_path / "a.npz", **dict(zip(names, (pictures, np.array([[2], [0], [1]])))))
    data = open_data_set(tmp_path / "a.npz")
    assert [tuple(item) for item in data] == [(0, "0", 2), (1, "1", 0), (2, "2", 1)]
    np.testing.assert_array_equal(np.asarray(data.load("1")), pictures[1])


@pytest.mark.parametrize("compressed", [False, True])
def test_a_folder_of_idx_files_gives_its_test_set(tmp_path, compressed):
    pictures = np.random.default_rng(0).integers(0, 256, (3, 5, 4), dtype=np.uint8)
    for split, some in (("train", pictures[:2]), ("t10k", pictures)):
        for kind, array in (("images-idx3", some), ("labels-idx1", np.arange(len(some), dtype=np.uint8))):
            raw = idx(array)
            path = tmp_path / f"{split}-{kind}-ubyte{'.gz' if compressed else ''}"
            path.write_bytes(gzip.compress(raw) if compressed else raw)
    data = open_data_set(tmp_path)
    assert [tuple(item) for item in data] == [(0, "0", 0), (1, "1", 1), (2, "2", 2)]
    np.testing.assert_array_equal(np.asarray(data.load("2"))[..., 0], pictures[2])


@pytest.mark.parametrize(("kind", "dtype"), [(0x08, "u1"), (0x0B, ">i2"), (0x0D, ">f4"), (0x0E, ">f8")])
def test_idx_files_of_every_type(tmp_path, kind, dtype):
    array = np.arange(-3, 21).reshape(2, 3, 4).astype(dtype)
    (tmp_path / "a-idx3").write_bytes(idx(array, kind))
    np.testing.assert_array_equal(read_idx(tmp_path / "a-idx3"), array)


@pytest.mark.parametrize(
    ("raw", "told"),
    [
        (b"PK\3\4", "is no IDX file: it begins with 50 4b 03 04"),
        (b"", "is no IDX file"),
        (idx(np.zeros((2, 3), np.uint8))[:-1], "is damaged: 17 bytes, but its header tells of 18"),
        (idx(np.zeros((2, 3), np.uint8))[:9], "is damaged"),
    ],
)
def test_damaged_idx_files_are_refused(tmp_path, raw, told):
    (tmp_path / "a").write_bytes(raw)
    with pytest.raises(ValueError, match=told):
        read_idx(tmp_path / "a")


def test_another_process_opens_the_file_itself(tmp_path):
    np.savez(tmp_path / "a.npz", images=np.zeros((500, 28, 28), np.uint8), labels=np.arange(500))
    data = open_data_set(tmp_path / "a.npz")
    assert len(data) == 500
    sent = pickle.dumps(data)
    assert len(sent) < 1000
    assert len(pickle.loads(sent)) == 500


def test_pictures_too_large_are_refused_by_their_header(tmp_path, monkeypatch):
    monkeypatch.setattr(data_module, "MOST_PIXELS", 27 * 28)
    data = open_data_set(class_folders(tmp_path / "val", 1))
    with pytest.raises(ValueError, match=r"0\.png is too large: 28 x 28 pixels, at most 756 are read"):
        data.load("Bag/0.png")


def test_limit_takes_pictures_from_everywhere(tmp_path):
    data = open_data_set(class_folders(tmp_path / "val", 8))
    assert chosen(data, None, None).all()
    assert np.flatnonzero(chosen(data, 6, None)).tolist() == [0, 4, 8, 12, 16, 20]
    assert chosen(data, 100, None).all()
    drawn = chosen(data, 6, 3)
    assert drawn.sum() == 6
    assert (drawn == chosen(data, 6, 3)).all()
    assert (drawn != chosen(data, 6, 4)).any()


def test_what_is_no_data_set_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"DATA .*none does not exist"):
        open_data_set(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="must hold a folder for each class, IDX files, or come with a label file"):
        open_data_set(tmp_path / "empty")
    (tmp_path / "a.txt").write_text("")
    with pytest.raises(ValueError, match=r"must be a folder or an \.npz file"):
        open_data_set(tmp_path / "a.txt")
    with pytest.raises(ValueError, match="label file needs a folder"):
        open_data_set(tmp_path / "a.txt", tmp_path / "a.txt")
    for arrays, told in (
        ({"a": np.zeros(3)}, "must hold the arrays images and labels or"),
        ({"images": np.zeros((3, 4))}, "pictures must be numbers"),
        ({"images": np.zeros((3, 4, 4)), "labels": np.zeros(2, int)}, "labels must be 3 whole numbers"),
        ({"images": np.zeros((3, 4, 4)), "labels": np.array([0, -1, 0])}, "labels must be 3 whole numbers"),
        ({"images": np.zeros((3, 4, 4)), "labels": np.zeros(3)}, "labels must be 3 whole numbers"),
    ):
        np.savez(tmp_path / "b.npz", **arrays)
        with pytest.raises(ValueError, match=told):
            len(open_data_set(tmp_path / "b.npz"))
    (tmp_path / "b.npz").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="cannot be read"):
        len(open_data_set(tmp_path / "b.npz"))


def test_a_folder_to_classify_has_no_labels(tmp_path):
    root = class_folders(tmp_path / "val", 1)
    Image.new("RGB", (3, 3)).save(root / "top.png")
    items = list(open_data_set(root, labelled=False))
    assert [item.key for item in items] == ["Ankle boot/0.png", "Bag/0.png", "Coat/0.png", "top.png"]
    assert {item.label for item in items} == {None}
