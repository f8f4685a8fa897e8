"""Where VTAB-1k's TFDS data sets come from: versions, sizes, manual downloads and known failures.

Sizes and addresses are those registered in tensorflow-datasets 4.9.10. TFDS compares the SHA-256 of every file,
including those in --manual-dir, with the registered one.
"""

import re
from dataclasses import dataclass
from pathlib import Path

GIGABYTE = 1e9

# File formats of TFDS that are read and written here.
FORMATS = ("tfrecord", "array_record")


@dataclass(frozen=True)
class Needed:
    """Files required below --manual-dir: their number, or the size of a single one."""

    pattern: str  # for Path.glob
    count: int = 1
    size: int = 0  # bytes, 0 for any

    def missing(self, manual_dir: Path) -> str:
        """What is missing, in a sentence; "" if nothing is."""
        files = sorted(manual_dir.glob(self.pattern))
        if len(files) < self.count:
            return (
                f"{manual_dir / self.pattern}: {len(files):,} of {self.count:,} files"
                if files or self.count > 1
                else (f"{manual_dir / self.pattern} is missing")
            )
        if self.size and files[0].stat().st_size != self.size:
            return (
                f"{files[0]} has {files[0].stat().st_size:,} bytes instead of {self.size:,}: the download is incomplete"
            )
        return ""


@dataclass(frozen=True)
class Recipe:
    """One TFDS data set.

    Attributes:
        builder: TFDS's name, with the config.
        makes: the version that TFDS 4.9.10 prepares.
        download: bytes to download, 0 if everything is downloaded manually.
        counts: images per TFDS split; other versions may differ slightly.
        by_hand: how to get what TFDS cannot download; "" if it can.
        needed: what must then be in --manual-dir.
        warnings: notes to print before and after.
    """

    builder: str
    makes: str
    download: int
    counts: dict[str, int]
    by_hand: str = ""
    needed: tuple[Needed, ...] = ()
    warnings: tuple[str, ...] = ()

    def missing(self, manual_dir: Path) -> list[str]:
        """What is missing in ``manual_dir``, one sentence each."""
        return [problem for needed in self.needed if (problem := needed.missing(manual_dir))]


_SUN397 = """\
SUN397's official address returns 404, so TFDS cannot download it (github.com/pytorch/vision/issues/9348).
Get the original archives from someone who has them, and put them into the manual folder without unpacking:
    SUN397.tar.gz    39,077,296,924 bytes  SHA-256 f404130965a7ad77bed5ececc71e720ab50f3cc1e1bb257257610d38f3b928ec
    Partitions.zip       18,293,705 bytes  SHA-256 e3311ea5f812d4cc6faef194688343d1111f6cd6f70f2c62f393c2b8d6ba1ec9
They were https://vision.princeton.edu/projects/2010/SUN/SUN397.tar.gz and .../SUN/download/Partitions.zip.
TFDS compares their SHA-256. Alternatively, use one of the VTAB-1k folders in circulation."""

_RESISC45 = """\
NWPU-RESISC45 is a .rar file on OneDrive: https://1drv.ms/u/s!AmgKYzARBl5ca3HNaHIlzp_IXjs
Unpack it (unrar x NWPU-RESISC45.rar) so that the manual folder holds NWPU-RESISC45/<class>/<class>_001.jpg ...:
45 classes, 31,500 images."""

_RETINOPATHY = """\
Diabetic retinopathy needs a Kaggle account that has accepted the competition's rules:
    https://www.kaggle.com/c/diabetic-retinopathy-detection/data
Download all parts of train.zip and test.zip, sample.zip and trainLabels.csv.zip, join the parts
(cat train.zip.* > train.zip) and unpack everything, so that the manual folder holds
    train/*.jpeg  35,126 images      test/*.jpeg  53,576 images      sample/*.jpeg  10 images      trainLabels.csv
A missing or incomplete part shows in the number of images. Preparing takes hours: every image is resized."""

RECIPES: dict[str, Recipe] = {
    recipe.builder: recipe
    for recipe in [
        Recipe(
            "caltech101",
            "3.0.2",
            137_414_764,
            {"train": 3060, "test": 6084},
            warnings=(
                "the split into train and test depends on the order in which the disk lists folders: two machines "
                "may get different splits; compare checksums",
            ),
        ),
        Recipe("cifar100", "3.0.2", 168_513_733, {"train": 50000, "test": 10000}),
        Recipe("dtd", "3.0.1", 625_239_812, {"train": 1880, "validation": 1880, "test": 1880}),
        Recipe(
            "oxford_flowers102",
            "2.1.1",
            344_878_000,
            {"train": 1020, "validation": 1020, "test": 6149},
        ),
        Recipe(
            "oxford_iiit_pet",
            "4.0.0",
            811_092_049,
            {"train": 3680, "test": 3669},
            warnings=(
                "VPT requires 3.*.*, which TFDS no longer prepares; 4.0.0 re-encodes 12 broken files. An existing 3.x "
                "is also read",
            ),
        ),
        Recipe(
            "svhn_cropped",
            "3.1.0",
            1_575_594_880,
            {"train": 73257, "test": 26032, "extra": 531131},
            warnings=("1.3 GB of the download are the unused split extra",),
        ),
        Recipe(
            "sun397/tfds",
            "4.0.0",
            0,
            {"train": 76127, "validation": 10875, "test": 21750},
            _SUN397,
            (Needed("SUN397.tar.gz", size=39_077_296_924), Needed("Partitions.zip", size=18_293_705)),
            ("one image of the train list cannot be decoded and is left out: 76,127 of 76,128",),
        ),
        Recipe("patch_camelyon", "2.0.0", 8_028_222_167, {"train": 262144, "validation": 32768, "test": 32768}),
        Recipe(
            "eurosat/rgb",
            "2.0.0",
            94_280_567,
            {"train": 27000},
            warnings=("if the host is down or its certificate has expired, put EuroSAT.zip into --manual-dir",),
        ),
        Recipe("resisc45", "3.0.0", 0, {"train": 31500}, _RESISC45, (Needed("NWPU-RESISC45/*/*.jpg", 31500),)),
        Recipe(
            "diabetic_retinopathy_detection/btgraham-300",
            "3.0.0",
            1_181_257,
            {"sample": 10, "train": 35126, "validation": 10906, "test": 42670},
            _RETINOPATHY,
            (
                Needed("train/*.jpeg", 35126),
                Needed("test/*.jpeg", 53576),
                Needed("sample/*.jpeg", 10),
                Needed("trainLabels.csv"),
            ),
        ),
        Recipe("clevr", "3.1.0", 19_021_600_724, {"train": 70000, "validation": 15000, "test": 15000}),
        Recipe("dmlab", "2.0.1", 3_017_022_789, {"train": 65550, "validation": 22628, "test": 22735}),
        Recipe(
            "kitti",
            "3.3.0",
            12_575_610_564,
            {"train": 6347, "validation": 423, "test": 711},
            warnings=("VPT requires 3.2.0, which TFDS no longer prepares; an existing 3.2.0 or 3.1.0 is also read",),
        ),
        Recipe("dsprites", "2.0.0", 28_024_106, {"train": 737280}),
        Recipe("smallnorb", "2.0.0", 262_778_180, {"train": 24300, "test": 24300}),
    ]
}

# (builder or "" for any, pattern in its output, explanation); the first match is printed.
_KNOWN_FAILURES = [
    ("sun397/tfds", r"HTTP code: 404|vision\.princeton\.edu", _SUN397),
    (
        "eurosat/rgb",
        r"(?i)certificate|SSL|ConnectionError|Max retries|madm\.dfki\.de",
        "EuroSAT's host is down or its certificate has expired (github.com/phelber/EuroSAT/issues/10). Get\n"
        "EuroSAT.zip from the mirror that torchvision.datasets.EuroSAT uses, put it into a folder and pass it as\n"
        "--manual-dir: 94,280,567 bytes, SHA-256 8ebea626349354c5328b142b96d0430e647051f26efc2dc974c843f25ecf70bd.",
    ),
    (
        "",
        r"NonMatchingChecksumError|wrong checksum",
        "A downloaded file is not the registered one: it is incomplete, or the server returned an error page\n"
        "or another file. Check the file named above, remove it and run again. If it is complete, a newer\n"
        "tensorflow-datasets may know it.",
    ),
    (
        "",
        r"cannot be loaded at version|can only be (generated|prepared)|cannot be generated",
        "This tensorflow-datasets cannot prepare that version: install the one that 'vitune[prepare]' requires, which\n"
        "prepares versions that ViTune reads (oxford_iiit_pet 4.0.0, kitti 3.3.0).",
    ),
    (
        "",
        r"No module named '?(cv2|h5py|scipy|PIL|importlib_resources)|(?i:libGL)",
        "A package that this data set needs is not installed there: pip install 'vitune[prepare]'",
    ),
    (
        "",
        r"(?i)no space left|not enough disk space",
        "The disk is full: TFDS needs space for the download and the data.",
    ),
    (
        "",
        r"HTTP code: 4\d\d|\b40[34] Client Error",
        "The file is no longer at this address. If you find the original elsewhere, put it, under its name in the\n"
        "address, into a folder and pass that as --manual-dir: TFDS compares its checksum.",
    ),
    (
        "",
        r"(?i)connectionerror|max retries|timed? ?out|name resolution|name or service|unreachable|IncompleteRead",
        "The network or the server failed. Run the same command again: complete downloads are kept.",
    ),
]


def explain_failure(builder: str, output: str) -> str:
    """The explanation of a failure with this output; "" if none is known."""
    for its, pattern, meaning in _KNOWN_FAILURES:
        if its in ("", builder) and re.search(pattern, output):
            return meaning
    return ""


def size_text(size: int) -> str:
    return f"{size / GIGABYTE:.1f} GB" if size >= GIGABYTE else f"{size / 1e6:.0f} MB"
