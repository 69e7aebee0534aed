"""Generated requests from the server's own OpenAPI document: nothing of it is the server's fault."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from pace import SLOWNESS
from servers import Serve

CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"
SEED = "7"
EXAMPLES = "15"
SECONDS = 110
# One worker: `ast.parse` of CPython 3.11 miscounts its depth when two threads use it (gh-106905), and hypothesis does.


@pytest.mark.skipif(SLOWNESS > 2, reason="an emulated machine is too slow for thousands of requests")
def test_generated_requests_find_no_failure_of_the_server(
    serve: Serve, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server = serve("--max-sandboxes", "3")
    made = server.create("known")
    document = server.ask("GET", "/openapi.json").json
    # Some of the generated paths shall meet a sandbox that exists.
    for item in document["paths"].values():
        for method, operation in item.items():
            # What one of them removes none of the others can meet.
            names, ids = (["unknown"], [made["org_id"]]) if method == "delete" else (["known", "unknown"], [made["id"]])
            for parameter in operation["parameters"]:
                if parameter["name"] == "name":
                    parameter["schema"] = {"type": "string", "enum": names}
                elif parameter["schema"].get("format") == "uuid":
                    parameter["schema"] = {"type": "string", "enum": ids}
    # A followed log ends with its sandbox only, which these requests need not do.
    del document["paths"]["/v1/sandboxes/{id}/logs"], document["paths"]["/v1/sandboxes/by-name/{name}/logs"]
    schema = tmp_path / "openapi.json"
    schema.write_text(json.dumps(document))
    program = str(Path(sys.executable).with_name("schemathesis"))
    command = [program, "run", str(schema), "--url", server.url, "-H", f"Authorization: Bearer {server.key}"]
    options = ["--checks", CHECKS, "--max-examples", EXAMPLES, "--seed", SEED, "--workers", "1", "--no-color"]
    limits = ["--request-timeout", "30", "--phases", "coverage,fuzzing"]
    ran = subprocess.run(
        [*command, *options, *limits],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        stdin=subprocess.DEVNULL,
    )
    summary = ran.stdout[ran.stdout.rfind("=== SUMMARY") :]
    with capsys.disabled():
        print(f"\nschemathesis: {summary}")
    assert ran.returncode == 0, ran.stdout.replace(server.key, "<key>") + server.notes.read_text()
    counted = re.search(r"(\d+) generated, (\d+) passed", summary)
    assert counted
    assert int(counted[1]) == int(counted[2]) > 500
    # It reached programs and sandboxes, not only refusals.
    statuses = {(line["route"], line["status"]) for line in map(json.loads, server.access_log.read_text().splitlines())}
    assert ("/v1/sandboxes/by-name/{name}/start", 200) in statuses or (
        "/v1/sandboxes/by-name/{name}/start",
        409,
    ) in statuses
    assert not [pair for pair in statuses if pair[1] >= 500 and pair[1] != 502], statuses
