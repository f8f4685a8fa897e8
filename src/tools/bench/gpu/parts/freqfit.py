"""FreqFit's filter by matrices and by FFT: up to how many tokens the matrices are faster."""

from collections.abc import Iterator

from ... import freqfit
from ..finding import Finding, Room


def run(room: Room) -> Iterator[Finding]:
    size = dict(dim=16, largest=64) if room.tiny else dict(dim=768, largest=1400)
    values = freqfit.run(room.options(rounds=2, **size)).values
    for row in values["rows"]:
        shape = "x".join(map(str, row["shape"]))
        wrong = row["errors"]["matrices"]["output"]["relative"]
        text = f"FFTs take {row['fft_over_matrices']:.2f} times as long; what matrices add is off by {wrong:.1e}"
        yield Finding(f"{shape} tokens, {row['precision']}", text, values=row)
    for precision, tokens in values["crossover"].items():
        text = f"at {tokens:.0f} tokens" if tokens else "nowhere up to the longest"
        limit = f"; this device's limit is set to {values['matrix_limit']}"
        yield Finding(f"FFTs win, {precision}", text + limit, values={"tokens": tokens})
