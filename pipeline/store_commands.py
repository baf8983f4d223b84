"""Commands about a store: what it says of itself, and whether its bytes are what they were."""

from typing import Annotated

from typer import Argument, Exit, Typer

from tinyhd_pipe.pipeline import console
from tinyhd_pipe.pipeline.commands import Json

app = Typer(help="Look at a store of teacher maps.", no_args_is_help=True)
Url = Annotated[str, Argument(help="Folder or fsspec URL of the store.")]


@app.command("info")
def info(store: Url, as_json: Json = False) -> None:
    """Say what made the maps, how they are stored, what that costs, and how much there is.

    tinyhd-pipe store info maps.zarr
    """
    from tinyhd_pipe.store.reader import open_store

    facts = open_store(store).info()
    measured = facts["fidelity"]["measured"]
    rows = [
        (
            name,
            "x".join(map(str, level["grid"])),
            f"{level['scale_factor']:.4f}",
            f"{measured[name]['kl']:.1e}" if name in measured else "",
            f"{measured[name]['bytes_per_map']:.0f}" if name in measured else "",
        )
        for name, level in facts["levels"].items()
    ]
    console.table(f"{store}: levels", ("level", "grid", "step, logits", "KL, nats", "bytes a map"), rows)
    teacher = [(name, str(fact)) for name, fact in {**facts["teacher"], **facts["provenance"]}.items()]
    console.table("teacher", ("", "fact"), teacher)
    console.table("time", ("", "fact"), [(name, str(fact)) for name, fact in facts["temporal"].items()])
    counts = ("videos", "videos_with_problems", "frames_with_maps", "failed_frames", "shards", "bytes")
    console.table("contents", ("", "count"), [(name.replace("_", " "), f"{facts[name]:,}") for name in counts])
    console.result(facts, as_json=as_json)


@app.command("verify")
def verify(store: Url, as_json: Json = False) -> None:
    """Check every byte against its checksum; exit code 1 where one is not what it was.

    tinyhd-pipe store verify maps.zarr
    """
    from tinyhd_pipe.store.verify import verify as check

    with console.progress("shards") as advance:
        found = check(store, report=advance)
    for damage in found.damages:
        console.say(str(damage))
    verdict = "every byte is as it was written" if found.sound else f"{len(found.damages)} damages"
    console.say(f"{store}: {found.shards} shards, {found.bytes:,} bytes: {verdict}")
    console.result(found, as_json=as_json)
    if not found.sound:
        raise Exit(1)
