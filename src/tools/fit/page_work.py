"""The parts of the page on what was done: advice, the choice, what was tried, and on what machine."""

from .page_parts import bar, name, number, paragraph, percent, table, text
from .page_pictures import Pictures
from .words import seconds

COMMANDS = ("predict {run} photos/new", "serve {run}")


def advice(result: dict, pictures: Pictures) -> str:
    if not result.get("next"):
        return ""
    return f"<ol>{''.join(f'<li>{text(one)}</li>' for one in result['next'])}</ol>"


def choice(result: dict, pictures: Pictures) -> str:
    """What was chosen, why, and how it is used."""
    chosen, files = result.get("choice"), result.get("files", {})
    if not chosen:
        return ""
    learned = chosen.get("parameters", {}).get("trained")
    what = f"<strong>{name(chosen['name'])}</strong> on {name(chosen['network'])} at {chosen['size']} pixels"
    what += f", {number(learned)} trained parameters" if learned is not None else ""
    what += f", {number(chosen['steps'])} steps" if chosen.get("steps") else ""
    parts = [f"<p>{what}.</p>", paragraph(f"Why: {chosen['why']}.")]
    forms = [f"<code>{text(files[form])}</code> ({form})" for form in ("tuned", "onnx", "hub") if form in files]
    if forms:
        parts.append(f"<p>In this folder: {', '.join(forms)}.</p>")
    parts += [paragraph(why, "caption") for form, why in files.items() if form.startswith("why_no")]
    if "run" in files:
        lines = "\n".join(f"vitune {one.format(run=text(files['run']))}" for one in COMMANDS)
        parts.append(f"<p>From here, it answers for other images:</p>\n<pre>{lines}</pre>")
    return "\n".join(parts)


def tried(result: dict, pictures: Pictures) -> str:
    """Networks with neighbours and linear heads, tuned candidates, and the time of each part."""
    parts = [_times(result.get("seconds", {})), _networks(result.get("networks", ())), _candidates(result)]
    return "\n".join(part for part in parts if part)


def _times(spent: dict) -> str:
    if not spent:
        return ""
    rest = ", ".join(f"{part} {seconds(value)}" for part, value in spent.items() if part != "total")
    total = f"{seconds(spent['total'])} in all" if "total" in spent else ""
    return paragraph(": ".join(one for one in (total, rest) if one))


def _networks(networks: list[dict]) -> str:
    rows = []
    for one in sorted(networks, key=lambda one: -(one.get("linear_head") or -1)):
        head, near = one.get("linear_head"), one.get("neighbours")
        size = f"{one['parameters'] / 1e6:.1f}" if one.get("parameters") else "–"
        cells = [
            name(one["name"]),
            str(one.get("size") or "–"),
            size,
            bar(near, percent(near)),
            bar(head, percent(head)),
        ]
        time = seconds(one["seconds"]) if "seconds" in one else "–"
        rows.append([*cells, time, text(one.get("why_not", ""))])
    if not rows:
        return ""
    head = ["network", "pixels", "parameters, M", "neighbours", "linear head", "features", "why not"]
    if not any(one.get("why_not") for one in networks):
        head, rows = head[:-1], [row[:-1] for row in rows]
    return f"<h3>Networks as they are</h3>\n{table(head, rows, (1, 2, 5))}"


def _candidates(result: dict) -> str:
    """Every run of successive halving, the best of the last round first."""
    plan, trials, beat = result.get("plan", {}), result.get("tried", ()), result.get("to_beat")
    if not trials:
        return paragraph(f"No network was tuned: {plan['why_not']}.") if plan.get("why_not") else ""
    ranked = sorted(trials, key=lambda one: (-one["round"], -(one["top1"] if one["top1"] is not None else -1)))
    rows = [
        [
            name(one["name"]),
            str(one["round"]),
            number(one["steps"]),
            bar(one["top1"], percent(one["top1"])) if one["top1"] is not None else text(one["why"]),
            number(one["trained"]),
            seconds(one["seconds"]),
        ]
        for one in ranked
    ]
    head = ["candidate", "round", "steps", "right of the judging images", "trained", "time"]
    judging = result.get("roles", {}).get("judging")
    caption = (
        f"A linear head had {percent(beat)} of the {number(judging)} judging images right." if beat is not None else ""
    )
    return f"<h3>Tuned networks</h3>\n{paragraph(caption) if caption else ''}{table(head, rows, (1, 2, 4, 5))}"


def made(result: dict, pictures: Pictures) -> str:
    """Versions, machine, request."""
    machine, request = result.get("machine", {}), result.get("request", {})
    facts = {"ViTune": result.get("version"), "written": result.get("written")}
    facts |= {"machine": ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in machine.items())}
    facts |= {key: value for key, value in request.items() if key != "images" and value not in ("", [], 0)}
    facts = {key: " ".join(map(str, v)) if isinstance(v, list) else v for key, v in facts.items() if v}
    return table(["", ""], [[text(key), name(value)] for key, value in facts.items()]) if facts else ""
