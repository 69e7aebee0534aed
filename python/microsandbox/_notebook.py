"""What a notebook shows: HTML and SVG of plain values, no scripts, nothing loaded from elsewhere.

What comes from a guest is hostile: every word of it is escaped, and only its end is shown.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ._microsandbox import ExecOutput, SandboxMetrics

#: Of a stream, its newest lines and bytes.
_LINES, _BYTES = 200, 64 << 10
_WIDTH, _HEIGHT, _LEFT, _TOP = 520, 120, 64, 22

# Colours are those of the notebook where it says so, else they follow the reader's light or dark preference.
_STYLE = """<style>
.msb{--ink:var(--jp-ui-font-color1,#1f2328);--dim:var(--jp-ui-font-color2,#59636e);--line:var(--jp-border-color2,#d1d9e0);
--good:#1a7f37;--bad:#cf222e;--warn:#9a6700;--blue:#0969da;font:13px/1.5 system-ui,sans-serif;color:var(--ink);
border:1px solid var(--line);border-radius:6px;padding:8px 12px;max-width:44rem}
@media (prefers-color-scheme:dark){.msb{--ink:var(--jp-ui-font-color1,#e6edf3);--dim:var(--jp-ui-font-color2,#9198a1);
--line:var(--jp-border-color2,#3d444d);--good:#3fb950;--bad:#f85149;--warn:#d29922;--blue:#4493f8}}
.msb b{font-weight:600}.msb .dim{color:var(--dim)}.msb .good{color:var(--good)}.msb .bad{color:var(--bad)}
.msb .warn{color:var(--warn)}.msb pre{margin:6px 0 0;padding:6px 8px;border-left:3px solid var(--line);
background:none;color:inherit;white-space:pre-wrap;overflow-wrap:anywhere;max-height:24rem;overflow:auto;font-size:12px}
.msb pre.err{border-left-color:var(--bad)}.msb table{margin:4px 0 0;border:0}
.msb td{text-align:left;border:0;padding:1px 14px 1px 0}
.msb svg text{fill:var(--dim);font:11px system-ui,sans-serif}.msb svg .axis{stroke:var(--line);fill:none}
.msb svg .curve{stroke:var(--blue);stroke-width:1.5;fill:none}
</style>"""


def _box(*parts: str) -> str:
    return f'{_STYLE}<div class="msb">{"".join(parts)}</div>'


def card(title: str, status: tuple[str, str], rows: Iterable[tuple[str, object]]) -> str:
    """A thing with its name, its state (a class of the style and a word) and what else is known."""
    colour, word = status
    cells = "".join(f'<tr><td class="dim">{escape(key)}</td><td>{escape(str(value))}</td></tr>' for key, value in rows)
    return _box(f'<b>{escape(title)}</b> <span class="{colour}">{escape(word)}</span>', f"<table>{cells}</table>")


#: The colour of each status.
STATUS = {"running": "good", "starting": "warn", "draining": "warn", "paused": "warn", "crashed": "bad"}


def exec_output(output: ExecOutput) -> str:
    """A finished run: how it ended, how long it took, what it wrote."""
    colour, word = _verdict(output)
    head = f'<span class="{colour}"><b>{word}</b></span> <span class="dim">{_seconds(output.duration)}</span>'
    streams = [
        _stream("", output.stdout_bytes, output.stdout_total),
        _stream("err", output.stderr_bytes, output.stderr_total),
    ]
    return _box(head, *streams)


def _verdict(output: ExecOutput) -> tuple[str, str]:
    if output.timed_out:
        return "bad", "killed: its time was over"
    if output.oom_killed:
        return "bad", "killed: out of memory"
    if output.signal is not None:
        return "bad", f"ended by signal {output.signal}"
    return ("good", "exit 0") if output.success else ("bad", f"exit {output.exit_code}")


def _seconds(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"


def _stream(kind: str, data: bytes, total: int) -> str:
    if total == 0:
        return ""
    kept = data[-_BYTES:]
    text = "\n".join(kept.decode("utf-8", "replace").splitlines()[-_LINES:])
    left_out = total - len(text.encode("utf-8", "replace"))
    note = f'<div class="dim">the end of {total:,} bytes</div>' if left_out > 64 else ""
    return f'{note}<pre class="{kind}">{escape(text)}</pre>'


def metrics(samples: Sequence[SandboxMetrics]) -> str:
    """Processor and memory over time, as curves."""
    if not samples:
        return _box('<span class="dim">no sample yet</span>')
    begun = samples[0].timestamp_ms
    times = [(sample.timestamp_ms - begun) / 1000 for sample in samples]
    processor = [sample.cpu_percent for sample in samples]
    memory = [sample.memory_bytes / (1 << 20) for sample in samples]
    limit = samples[-1].memory_limit_bytes / (1 << 20)
    return _box(
        _curve("processor", times, processor, max(100.0, *processor), "%"),
        _curve("memory", times, memory, max(limit, *memory), "MiB"),
    )


def _curve(name: str, times: Sequence[float], values: Sequence[float], top: float, unit: str) -> str:
    span = max(times[-1], 1e-9)
    plot = _WIDTH - _LEFT - 8, _HEIGHT - _TOP - 20
    points = " ".join(
        f"{_LEFT + plot[0] * at / span:.1f},{_TOP + plot[1] * (1 - value / top):.1f}"
        for at, value in zip(times, values, strict=True)
    )
    bottom = _TOP + plot[1]
    return (
        f'<svg width="{_WIDTH}" height="{_HEIGHT}" role="img" aria-label="{name}">'
        f'<text x="0" y="12">{name}: {values[-1]:.0f} {unit}</text>'
        f'<path class="axis" d="M{_LEFT} {_TOP}V{bottom}H{_LEFT + plot[0]}"/>'
        f'<text x="{_LEFT - 4}" y="{_TOP + 8}" text-anchor="end">{top:.0f} {unit}</text>'
        f'<text x="{_LEFT - 4}" y="{bottom}" text-anchor="end">0</text>'
        f'<text x="{_LEFT + plot[0]}" y="{_HEIGHT - 4}" text-anchor="end">{times[-1]:.0f} s</text>'
        f'<polyline class="curve" points="{points}"/></svg>'
    )


def progress(title: str, done: int, total: int) -> str:
    """A bar."""
    share = done / total if total else 0.0
    amount = f"{done / (1 << 20):.1f} of {total / (1 << 20):.1f} MiB" if total else f"{done / (1 << 20):.1f} MiB"
    return _box(
        f'<b>{escape(title)}</b> <span class="dim">{amount}</span>',
        f'<svg width="{_WIDTH}" height="10" role="img" aria-label="{share:.0%}">'
        f'<rect width="{_WIDTH}" height="8" rx="4" fill="var(--line)"/>'
        f'<rect width="{_WIDTH * share:.0f}" height="8" rx="4" fill="var(--blue)"/></svg>',
    )
