"""How `deploy`, `switch` and `upgrade` say what came of them, or what would."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from tools.render import count_text, json_path, one_line, print_json, say, size_text
from tools.sysroot.data_versions import Lower
from tools.sysroot.deploy import Outcome
from tools.sysroot.options import generation_json, generation_text

if TYPE_CHECKING:
    from tools.filling import Written
    from tools.linking import LinkCounts
    from tools.sysroot.plan import Plan


def print_plan(plan: Plan, *, in_json: bool) -> None:
    """Print what would happen."""
    from tools.sysroot.plan import plan_json, plan_lines

    if in_json:
        print_json(plan_json(plan))
        return
    for line in plan_lines(plan):
        print(one_line(line))


def print_outcome(outcome: Outcome, *, in_json: bool) -> None:
    """Print what came of it."""
    if in_json:
        print_json(_outcome_json(outcome))
        return
    for line in _outcome_lines(outcome):
        say(one_line(line))
    print(outcome.generation.root)


def written_text(written: Written, links: LinkCounts) -> str:
    """Return what was written, and how, in a line."""
    ways = ", ".join(f"{number} {way}" for way, number in asdict(links).items() if number)
    return f"{count_text(written.files, 'file')}, {size_text(written.bytes)} ({ways or 'none'})"


def _outcome_lines(outcome: Outcome) -> list[str]:
    lines = list(outcome.notes)
    if outcome.written and outcome.links:
        lines.append(written_text(outcome.written, outcome.links))
    else:
        lines.append(f"the deployment {outcome.generation.deployment} was there, and no change of /etc to carry over")
    if outcome.merge is not None:
        from tools.sysroot.merging import merge_lines

        lines += merge_lines(outcome.merge)
    lines += [_accepted(lower) for lower in outcome.lower]
    if outcome.generation.origin.packages:
        lines.append(f"packages: {outcome.generation.origin.packages}")
    before = f" (was {generation_text(outcome.previous)})" if outcome.previous else ""
    return [*lines, f"current is now {generation_text(outcome.generation)}{before}"]


def _accepted(lower: Lower) -> str:
    return f"accepted: {lower.text}"


def _outcome_json(outcome: Outcome) -> dict[str, object]:
    merge = outcome.merge
    return generation_json(outcome.generation) | {
        "changed": True,
        "reused": outcome.written is None,
        "written": asdict(outcome.written) if outcome.written else None,
        "links": asdict(outcome.links) if outcome.links else None,
        "etc": None if merge is None else {
            "modified": merge.modified, "added": merge.added, "deleted": merge.deleted,
            "text_merged": [json_path(path) for path in merge.text_merged],
            "skipped": [json_path(path) for path in merge.skipped],
            "linked": [json_path(path) for path in merge.linked],
            "mounted": [json_path(path) for path in merge.mounted],
            "conflicts": [
                {"path": json_path(one.path), "what": one.what, "kept": one.kept,
                 "beside": json_path(one.beside) if one.beside else None}
                for one in merge.conflicts
            ],
        },
        "accepted": [lower.text for lower in outcome.lower],
        "notes": outcome.notes,
    }  # fmt: skip
