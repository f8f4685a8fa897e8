"""What to do next, from what a fit found."""

UNEVEN = 0.15  # a class's recall is so much below the whole
RISING = 0.01  # accuracy that the second round gained over the first


def advice(result: dict) -> list[str]:
    """Sentences, the most useful first.

    Args:
        result: fit.json without "next".
    """
    steps = []
    if doubtful := result["evidence"]["doubtful_labels"]:
        number = f"{len(doubtful)} images, such as" if len(doubtful) > 1 else "1 image:"
        steps.append(f"look whether the labels are right of {number} {doubtful[0]['file']}")
    if result["data"]["similar"]["across_classes"]:
        steps.append("decide which label is right for each picture that has two")
    expected = result["promise"]["expected"]
    counted = {row["name"]: row for row in result["data"]["per_class"]}
    weak = [row for row in result["evidence"]["per_class"] if row["images"] and row["recall"] < expected - UNEVEN]
    for row in sorted(weak, key=lambda row: row["recall"])[:3]:
        have = sum(counted[row["name"]].get(split, 0) for split in ("train", "val"))
        steps.append(f"add images of {row['name']}: it has {have}, and {100 * row['recall']:.0f} % are recognised")
    if why := result["plan"]["why_not"]:
        steps.append(f"tuning a network often gains much, and none was tuned: {why}")
    elif gain := _gain(result["tried"]):
        steps.append(f"give a larger budget: the second round gained {100 * gain:.1f} points over the first")
    if len([row for row in result["networks"] if not row["why_not"]]) < 2 or result["choice"]["network"].startswith(
        "vit_micro"
    ):
        steps.append(
            "put the weights of a larger network into the folder of pre-trained weights, such as dinov2_vitb14: "
            "vitune list backbones says from where"
        )
    width = result["promise"]["high"] - result["promise"]["low"]
    if width > 0.1:
        images = result["promise"]["images"]
        steps.append(
            f"the interval is {100 * width:.0f} points wide, from {images} images; four times as many halve it"
        )
    return steps


def _gain(tried: list[dict]) -> float:
    """What the best second-round trial gained over its own first round; 0 below RISING."""
    best = {number: max((t["top1"] or 0 for t in tried if t["round"] == number), default=0) for number in (1, 2)}
    gain = best[2] - best[1] if best[2] else 0
    return gain if gain >= RISING else 0
