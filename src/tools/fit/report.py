"""The end of a fit in a few lines."""

from pathlib import Path

from .page import PAGE
from .words import counted


def summary(result: dict, folder: Path) -> str:
    """What was chosen, what to expect, what the test images said, what to do next, and where everything is."""
    expected, choice, test = result["promise"], result["choice"], result["test"]
    lines = [
        f"chosen: {choice['name']} on {choice['network']} at {choice['size']} pixels",
        f"expect {expected['text']} on images of this kind: {expected['images']} images, {expected['rests_on']}",
    ]
    if test and test["top1"] is not None:
        low, high = 100 * test["low"], 100 * test["high"]
        lines.append(f"test:   {100 * test['top1']:.1f} % ({low:.1f} to {high:.1f}) of {test['images']} test images")
    if test and test["leaked"]:
        lines.append(
            f"        not counted: {counted(test['leaked'], 'test image')} whose pictures are among the others; "
            f"with them {100 * test['top1_with_leaked']:.1f} %"
        )
    lines += [f"time:   {one['text']}" for one in result["findings"] if one["code"] == "over_budget"]
    lines += [f"next:   {text}" for text in result["next"]]
    forms = [f"{folder / result['files'][name]}" for name in ("run", "onnx", "hub") if name in result["files"]]
    lines.append(f"model:  {', '.join(forms)}")
    lines.append(f"page:   {folder / PAGE}; for programs: {folder / 'fit.json'}")
    return "\n".join(lines)
