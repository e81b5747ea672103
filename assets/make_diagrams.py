"""The diagrams of README and docs, drawn as SVG into ``assets/diagrams``: ``make diagrams``.

Boxes stand where this script puts them; the edges of the asset graph are those of the code location.
"""

import sys
from dataclasses import dataclass, field
from pathlib import Path
from xml.sax.saxutils import escape

from orchestration.definitions import defs

FOLDER = Path(__file__).parent / "diagrams"

LONGEST_TITLE = 19
"""Longer names of assets go on two lines."""

STYLE = """
  text { font: 13px system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; fill: #24292f }
  .card { fill: #ffffff; stroke: #d0d7de }
  .group { fill: #f6f8fa; stroke: #d0d7de }
  .box { fill: #ffffff; stroke: #57606a; stroke-width: 1.2 }
  .models { fill: #e6f4f1; stroke: #2a7f75 } .requests { fill: #fdf0e6; stroke: #b35c1e }
  .source { stroke-dasharray: 4 3 }
  .title { font-weight: 600 } .small { font-size: 11px } .label { font-size: 11px }
  .small, .label, .heading { fill: #57606a } .heading { font-weight: 600; font-size: 12px }
  .edge { fill: none; stroke: #6e7781; stroke-width: 1.3; marker-end: url(#end) }
  .both { marker-start: url(#start) }
  .head { fill: #6e7781 }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3 }
    .card { fill: #0d1117; stroke: #30363d } .group { fill: #161b22; stroke: #30363d }
    .box { fill: #0d1117; stroke: #8b949e }
    .models { fill: #10302c; stroke: #4fb3a6 } .requests { fill: #3a2314; stroke: #e08a4a }
    .small, .label, .heading { fill: #9da7b1 }
    .edge { stroke: #8b949e } .head { fill: #8b949e }
  }
"""
HEADS = (
    '<marker id="end" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
    '<path class="head" d="M0 0L8 4L0 8z"/></marker>'
    '<marker id="start" viewBox="0 0 8 8" refX="1" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
    '<path class="head" d="M8 0L0 4L8 8z"/></marker>'
)


@dataclass(frozen=True)
class Box:
    """A rectangle with a title and, below it, smaller lines."""

    x: int
    y: int
    width: int
    height: int
    title: str
    lines: tuple[str, ...] = ()
    kind: str = ""

    @property
    def middle(self) -> tuple[float, float]:
        """Its centre."""
        return self.x + self.width / 2, self.y + self.height / 2

    def svg(self) -> str:
        """Rectangle and text."""
        x, y = self.middle
        if len(self.title) > LONGEST_TITLE and self.title.isidentifier():
            half = self.title.index("_", len(self.title) // 3) + 1
            titles = [self.title[:half], self.title[half:]]
        else:
            titles = [self.title]
        top = y - (len(self.lines) + len(titles) - 1) * 7.5 + 4.5
        text = [
            f'<text class="title" x="{x:g}" y="{top + 15 * number:g}" text-anchor="middle">{escape(title)}</text>'
            for number, title in enumerate(titles)
        ]
        text += [
            f'<text class="small" x="{x:g}" y="{top + 15 * number:g}" text-anchor="middle">{escape(line)}</text>'
            for number, line in enumerate(self.lines, len(titles))
        ]
        return rectangle(self.x, self.y, self.width, self.height, f"box {self.kind}".strip()) + "".join(text)


@dataclass
class Drawing:
    """A picture that grows: first what lies behind, then edges, then boxes."""

    width: int
    height: int
    description: str
    behind: list[str] = field(default_factory=list)
    edges: list[str] = field(default_factory=list)
    boxes: list[str] = field(default_factory=list)

    def group(self, x: int, y: int, width: int, height: int, heading: str, indent: int = 12) -> None:
        """A titled area behind boxes."""
        self.behind.append(rectangle(x, y, width, height, "group"))
        self.behind.append(f'<text class="heading" x="{x + indent}" y="{y + 20}">{escape(heading)}</text>')

    def box(self, x: int, y: int, width: int, height: int, title: str, *lines: str, kind: str = "") -> Box:
        """A box, drawn over the edges."""
        box = Box(x, y, width, height, title, lines, kind)
        self.boxes.append(box.svg())
        return box

    def edge(self, path: str, label: str = "", at: tuple[float, float] = (0, 0), both: bool = False) -> None:
        """An arrow along an SVG path, with a label centred at a point."""
        self.edges.append(f'<path class="edge{" both" if both else ""}" d="{path}"/>')
        if label:
            self.note(label, *at)

    def note(self, text: str, x: float, y: float, anchor: str = "middle") -> None:
        """Small text."""
        self.boxes.append(f'<text class="label" x="{x:g}" y="{y:g}" text-anchor="{anchor}">{escape(text)}</text>')

    def svg(self) -> str:
        """The whole document."""
        parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {self.width} {self.height}" '
            f'width="{self.width}" height="{self.height}" role="img" aria-label="{escape(self.description)}">',
            f"<style>{STYLE}</style><defs>{HEADS}</defs>",
            rectangle(0.5, 0.5, self.width - 1, self.height - 1, "card", corner=10),
            *self.behind,
            *self.edges,
            *self.boxes,
            "</svg>",
        ]
        return "\n".join(parts) + "\n"


def rectangle(x: float, y: float, width: float, height: float, kind: str, corner: int = 6) -> str:
    """A rounded rectangle."""
    return f'<rect class="{kind}" x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="{corner}"/>'


def system() -> str:
    """Who talks to what in a fleet."""
    drawing = Drawing(1000, 500, "The system: people, Dagster, workers and the object store")
    drawing.group(250, 40, 330, 250, "Dagster")
    drawing.group(670, 40, 310, 250, "Workers")
    drawing.group(30, 370, 950, 92, "Object store: S3, MinIO or a folder")

    drawing.box(40, 82, 130, 56, "Operator", "weights, workers")
    drawing.box(40, 212, 130, 56, "Artist", "picture, video, prompt")
    drawing.box(430, 80, 130, 62, "Web UI", "lineage, plots, checks")
    drawing.box(270, 80, 130, 62, "Daemon", "sensors, queue")
    drawing.box(270, 205, 290, 56, "Database", "runs and events: SQLite or PostgreSQL")
    drawing.box(690, 80, 110, 62, "Redis", "run messages")
    drawing.box(830, 80, 130, 62, "GPU worker", "one per GPU,", "keeps its engine")
    drawing.box(690, 205, 110, 56, "CPU worker", "all other runs")
    drawing.box(830, 205, 130, 56, "Model weights", "from a model hub")
    drawing.box(50, 400, 250, 48, "Inbox", "documents and media")
    drawing.box(330, 400, 280, 48, "Artifacts", "poses, clips, reviews, with manifests")
    drawing.box(640, 400, 320, 48, "Chunks", "finished parts of clips in progress")

    drawing.edge("M170 110H248", "configure", (209, 103))
    drawing.edge("M170 240H248", "watch", (209, 233))
    drawing.edge("M105 270V368", "submit, fetch", (145, 323), both=True)
    drawing.edge("M288 398V292", "scan", (306, 335))
    drawing.edge("M335 142V203", both=True)
    drawing.edge("M495 142V203", both=True)
    drawing.edge("M580 111H688", "runs", (625, 103))
    drawing.edge("M800 111H828")
    drawing.edge("M745 142V203")
    drawing.edge("M895 205V144")
    drawing.edge("M670 233H562", "events", (625, 226))
    drawing.edge("M520 398V325H720V292", "inputs and outputs", (620, 318), both=True)
    drawing.edge("M880 292V398", "resume after a crash", (818, 345), both=True)
    drawing.note("On one machine, make ui runs all of this without Redis, on SQLite and a folder.", 500, 485)
    return drawing.svg()


ASSET_PLACES = {
    "checkpoint_repository": (0, 50),
    "pose_repositories": (0, 104),
    "wan_repository": (0, 158),
    "migrated_pretrained_models": (0, 212),
    "one_to_all_checkpoint": (1, 50),
    "pose_models": (1, 104),
    "slimmed_wan_resources": (1, 158),
    "wheel_networks": (1, 212),
    "model_verification": (2, 104),
    "pose_networks": (2, 212),
    "animation_model": (4, 104),
    "request_document": (0, 320),
    "reference_picture": (0, 374),
    "driving_video": (0, 428),
    "requested_poses": (0, 504),
    "animation_request": (1, 320),
    "request_media": (1, 401),
    "pose_options": (1, 504),
    "pose_tracks": (2, 366),
    "pose_conditioning": (3, 478),
    "animation": (4, 374),
    "animation_review": (5, 436),
}
"""Asset -> its column, and the top of its box."""


def asset_graph() -> str:
    """Every asset and what it is made from."""
    graph = defs.resolve_asset_graph()
    drawing = Drawing(1090, 590, "The asset graph: model files above, one request's clip below")
    drawing.group(10, 18, 1070, 250, "models: one partition per model variant, or per wheel of networks")
    drawing.group(10, 288, 1070, 270, "animations: one partition per request")
    boxes: dict[str, Box] = {}
    for key in sorted(graph.get_all_asset_keys()):
        name, node = key.to_user_string(), graph.get(key)
        column, top = ASSET_PLACES[name]
        kind = "models" if node.group_name in {"models", "wheels"} else "requests"
        kind += " source" if node.is_external else ""
        boxes[name] = drawing.box(24 + 178 * column, top, 152, 42, name, kind=kind)
    for key in sorted(graph.get_all_asset_keys()):
        for parent in sorted(graph.get(key).parent_keys):
            name, child = parent.to_user_string(), key.to_user_string()
            drawing.edge(connection(name, child, boxes))
    drawing.note("Dashed: what people and hubs provide, observed by digest.", 545, 578)
    return drawing.svg()


def connection(parent: str, child: str, boxes: dict[str, Box]) -> str:
    """The path of an edge: from side to side, or downwards within a column."""
    a, b = boxes[parent], boxes[child]
    (ax, ay), (bx, by) = a.middle, b.middle
    if (parent, child) == ("pose_networks", "animation_review"):
        return f"M{a.x + a.width} {ay:g}H{bx - 10:g}Q{bx:g} {ay:g} {bx:g} {ay + 10:g}V{b.y - 2}"
    if a.x == b.x:
        return f"M{ax:g} {a.y + a.height}V{b.y - 2}"
    start, end = a.x + a.width, b.x - 2
    bend = min(60, (end - start) / 2)
    return f"M{start} {ay:g}C{start + bend:g} {ay:g} {end - bend:g} {by:g} {end} {by:g}"


def request() -> str:
    """The life of a request, from the document to the clip."""
    drawing = Drawing(1000, 560, "The life of a request")
    drawing.group(30, 250, 940, 200, "one run of the job animate for the partition ID", indent=370)
    person = drawing.box(40, 30, 130, 50, "Artist", "one-to-all submit")
    drawing.box(230, 30, 150, 50, "inbox/", "document and media")
    drawing.box(440, 30, 150, 50, "Inbox sensor", "valid? media there?")
    drawing.box(660, 30, 200, 50, "requests/accepted/ID.json", "requests/open/…")
    drawing.box(440, 140, 150, 50, "inbox/rejected/", "with the reason")
    drawing.box(660, 140, 200, 50, "Dagster's queue", "by priority; one run per request")
    drawing.box(60, 140, 190, 50, "model_verification", "blocks unverified weights")

    drawing.box(50, 300, 160, 64, "animation_request", "request_media", "pose_options", kind="requests")
    drawing.box(260, 300, 130, 50, "pose_tracks", "key-points", kind="requests")
    drawing.box(440, 300, 150, 50, "pose_conditioning", "fitted, drawn poses", kind="requests")
    drawing.box(640, 300, 130, 50, "animation", "the clip", kind="requests")
    drawing.box(820, 300, 140, 50, "animation_review", "measures, warnings", kind="requests")
    drawing.box(240, 390, 170, 44, "shared_pose_tracks/")
    drawing.box(640, 390, 130, 44, "chunks/")
    drawing.box(430, 490, 250, 46, "animation/ID/… and the others", "files, then the manifest")

    drawing.edge(f"M{person.x + person.width} 55H228")
    drawing.edge("M380 55H438", "scan", (409, 48))
    drawing.edge("M590 55H658", "accept", (624, 48))
    drawing.edge("M515 80V138", "reject", (540, 112))
    drawing.edge("M760 80V138", "run request", (795, 112))
    drawing.edge("M760 190V220H500V248", "a worker, or this machine", (630, 213))
    drawing.edge("M155 190V298")
    drawing.edge("M210 325H258")
    drawing.edge("M390 325H438")
    drawing.edge("M590 325H638")
    drawing.edge("M770 325H818")
    drawing.edge("M130 364V376Q130 380 134 380H511Q515 380 515 376V352")
    drawing.edge("M325 350V388", both=True)
    drawing.edge("M705 350V388", both=True)
    drawing.edge("M555 450V488", "every asset", (590, 474))
    drawing.note("same media, same networks", 325, 448)
    drawing.note("resume after a crash", 705, 448)
    return drawing.svg()


DIAGRAMS = {"system": system, "asset-graph": asset_graph, "request": request}


def main() -> None:
    """Write all of them, or those named on the command line."""
    FOLDER.mkdir(exist_ok=True)
    for name in sys.argv[1:] or DIAGRAMS:
        (FOLDER / f"{name}.svg").write_text(DIAGRAMS[name]())


if __name__ == "__main__":
    main()
