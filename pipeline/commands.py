"""The commands that are small: sample data, the settings, and what there is on this machine.

What is heavy is imported inside the command that needs it, so `--help` answers at once.
"""

import sys
from pathlib import Path
from typing import Annotated

from typer import Argument

from tinyhd_pipe.pipeline import console
from tinyhd_pipe.pipeline.options import Json, Overrides, Params


def sample_data(
    directory: Annotated[
        Path, Argument(help="Folder to fill with train, heldout and unlabelled clips.", metavar="DIR")
    ],
    params: Params = None,
    overrides: Overrides = None,
    as_json: Json = False,
) -> None:
    """Write synthetic labelled and unlabelled clips, in the DHF1K layout.

    tinyhd-pipe sample-data data/sample
    """
    from tinyhd_pipe.pipeline.params import load_params
    from tinyhd_pipe.stages.sample_data import make_sample_data

    options = load_params(params, overrides).sample_data
    with console.progress("sample data") as advance:
        made = make_sample_data(directory, options, progress=advance)
    train, heldout, unlabelled = made.clips
    console.say(f"{directory}: {train} labelled clips, {heldout} held out, {unlabelled} unlabelled")
    console.result(made, as_json=as_json)


def show_params(params: Params = None, overrides: Overrides = None) -> None:
    """Print every setting with its meaning, as YAML.

    tinyhd-pipe params > params.yaml
    """
    from tinyhd_pipe.pipeline.params import as_yaml, load_params

    sys.stdout.write(as_yaml(load_params(params, overrides)))


def show_environment(as_json: Json = False) -> None:
    """Print versions, processor, devices and threads: what a bug report needs.

    tinyhd-pipe env
    """
    from tinyhd_pipe.stages.bench.machine import environment

    facts = environment()
    if as_json:
        console.result(facts, as_json=True)
        return
    width = max(map(len, facts))
    sys.stdout.write("".join(f"{name:<{width}}  {fact}\n" for name, fact in facts.items()))
