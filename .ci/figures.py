"""Hold what `make run` measured against what README promises of it; exit code 1 where it is not kept."""

import json
import sys
from pathlib import Path

figures = {
    name: json.loads((Path(sys.argv[1]) / f"{name}.json").read_text())
    for name in ("teacher", "student", "teacher_still_frames", "centre_prior")
}
teacher, student, still, centre = (of["CC"] for of in figures.values())
flat = max(figures[name]["saturated"] for name in ("teacher", "student"))
promises = {
    f"teacher CC {teacher:.3f} is at least 0.7": teacher >= 0.7,
    f"teacher CC {teacher:.3f} is at least twice the centre prior's {centre:.3f}": teacher >= 2 * centre,
    f"teacher CC {teacher:.3f} is at least twice its own on still frames, {still:.3f}": teacher >= 2 * still,
    f"student CC {student:.3f} is at least 0.93 of the teacher's {teacher:.3f}": student >= 0.93 * teacher,
    f"share of saturated peaks {flat:.3f} is at most 0.02": flat <= 0.02,
}
for promise, kept in promises.items():
    sys.stdout.write(f"{'kept' if kept else 'BROKEN'}: {promise}\n")
sys.exit(not all(promises.values()))
