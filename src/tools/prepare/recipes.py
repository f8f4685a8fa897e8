"""Where the TFDS data sets behind VTAB-1k come from: versions, sizes, what has to be fetched by hand, what goes wrong.

Sizes and addresses are those that tensorflow-datasets 4.9.10 has registered. TFDS compares the SHA-256 of every file,
also of those in --manual-dir, with the registered one.
"""

import re
from dataclasses import dataclass
from pathlib import Path

GIGABYTE = 1e9


@dataclass(frozen=True)
class Needed:
    """Files that have to be below --manual-dir: how many there are to be, or of what size a single one is."""

    pattern: str  # as Path.glob takes it
    count: int = 1
    size: int = 0  # bytes, 0 for any

    def missing(self, manual_dir: Path) -> str:
        """What is wrong, in a sentence; "" if all is there."""
        found = sorted(manual_dir.glob(self.pattern))
        if len(found) < self.count:
            return (
                f"{manual_dir / self.pattern}: {len(found):,} of {self.count:,} files"
                if found or self.count > 1
                else (f"{manual_dir / self.pattern} is missing")
            )
        if self.size and found[0].stat().st_size != self.size:
            return (
                f"{found[0]} has {found[0].stat().st_size:,} bytes, should have {self.size:,}: the download was cut off"
            )
        return ""


@dataclass(frozen=True)
class Recipe:
    """One TFDS data set.

    Attributes:
        builder: TFDS's name, with the config.
        makes: the version that TFDS 4.9.10 makes.
        download: bytes that are downloaded, 0 if all is fetched by hand.
        counts: images by TFDS split; other versions may have a few more or less.
        by_hand: how to get what TFDS cannot download, "" if it can.
        needed: what then has to be in --manual-dir.
        warnings: what is worth knowing before and after.
    """

    builder: str
    makes: str
    download: int
    counts: dict[str, int]
    by_hand: str = ""
    needed: tuple[Needed, ...] = ()
    warnings: tuple[str, ...] = ()

    def missing(self, manual_dir: Path) -> list[str]:
        """What is not in ``manual_dir``, a sentence each."""
        return [said for needed in self.needed if (said := needed.missing(manual_dir))]


_SUN397 = """\
SUN397's official address answers 404, so TFDS cannot download it (github.com/pytorch/vision/issues/9348).
Get the original archives from somebody who has them, and put them, not unpacked, into the manual folder:
    SUN397.tar.gz    39,077,296,924 bytes  SHA-256 f404130965a7ad77bed5ececc71e720ab50f3cc1e1bb257257610d38f3b928ec
    Partitions.zip       18,293,705 bytes  SHA-256 e3311ea5f812d4cc6faef194688343d1111f6cd6f70f2c62f393c2b8d6ba1ec9
They were https://vision.princeton.edu/projects/2010/SUN/SUN397.tar.gz and .../SUN/download/Partitions.zip.
TFDS compares their SHA-256. The VTAB folders that circulate are the other way to have this task."""

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
A part that was left out or cut off shows in the number of images. Preparing takes hours: every image is resized."""

RECIPES: dict[str, Recipe] = {
    recipe.builder: recipe
    for recipe in [
        Recipe(
            "caltech101",
            "3.0.2",
            137_414_764,
            {"train": 3060, "test": 6084},
            warnings=(
                "which images are train and test depends on the order in which the disk lists folders: two machines "
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
                "VPT asked for 3.*.*, which TFDS no longer makes; 4.0.0 encodes 12 broken files anew. A 3.x that is "
                "on disk is read",
            ),
        ),
        Recipe(
            "svhn_cropped",
            "3.1.0",
            1_575_594_880,
            {"train": 73257, "test": 26032, "extra": 531131},
            warnings=("1.3 GB of the download are the split extra, which is not used",),
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
            warnings=("the host is often down or has an expired certificate: put EuroSAT.zip into --manual-dir then",),
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
            warnings=("VPT asked for 3.2.0, which TFDS no longer makes; a 3.2.0 or 3.1.0 that is on disk is read",),
        ),
        Recipe("dsprites", "2.0.0", 28_024_106, {"train": 737280}),
        Recipe("smallnorb", "2.0.0", 262_778_180, {"train": 24300, "test": 24300}),
    ]
}

# (builder or "" for any, what its output has, what that means and what to do); the first that fits is said.
_KNOWN_FAILURES = [
    ("sun397/tfds", r"HTTP code: 404|vision\.princeton\.edu", _SUN397),
    (
        "eurosat/rgb",
        r"(?i)certificate|SSL|ConnectionError|Max retries|madm\.dfki\.de",
        "EuroSAT's host is down or its certificate has expired (github.com/phelber/EuroSAT/issues/10). Get\n"
        "EuroSAT.zip from the mirror that torchvision.datasets.EuroSAT uses, put it into a folder and give that as\n"
        "--manual-dir: 94,280,567 bytes, SHA-256 8ebea626349354c5328b142b96d0430e647051f26efc2dc974c843f25ecf70bd.",
    ),
    (
        "",
        r"NonMatchingChecksumError|wrong checksum",
        "A downloaded file is not the one that TFDS knows: it was cut off, or the server answered with an error page\n"
        "or another file. Look at the file that is named above, remove it and run again. If it is whole, a newer\n"
        "tensorflow-datasets may know it.",
    ),
    (
        "",
        r"cannot be loaded at version|can only be (generated|prepared)|cannot be generated",
        "This tensorflow-datasets cannot make that version: use the one pinned in requirements-prepare.txt, which\n"
        "makes versions that ViTune reads (oxford_iiit_pet 4.0.0, kitti 3.3.0).",
    ),
    (
        "",
        r"No module named '?(cv2|h5py|scipy|PIL|importlib_resources)|(?i:libGL)",
        "A package that this data set needs is not installed there: pip install -r requirements-prepare.txt",
    ),
    (
        "",
        r"(?i)no space left|not enough disk space",
        "The disk is full: TFDS needs room for the download and the data.",
    ),
    (
        "",
        r"HTTP code: 4\d\d|\b40[34] Client Error",
        "The address no longer gives the file. If you find the original elsewhere, put it, under the name it has in\n"
        "the address, into a folder and give that as --manual-dir: TFDS compares its checksum.",
    ),
    (
        "",
        r"(?i)connectionerror|max retries|timed? ?out|name resolution|name or service|unreachable|IncompleteRead",
        "The network or the server failed. Run the same command again: what was downloaded whole is kept.",
    ),
]


def explain_failure(builder: str, output: str) -> str:
    """What is known about a failure with this output, "" if nothing is."""
    for its, pattern, meaning in _KNOWN_FAILURES:
        if its in ("", builder) and re.search(pattern, output):
            return meaning
    return ""


def size_text(size: int) -> str:
    return f"{size / GIGABYTE:.1f} GB" if size >= GIGABYTE else f"{size / 1e6:.0f} MB"
