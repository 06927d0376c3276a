"""Writes the vectors of messages in v1/, from PROTOCOL.md alone: Python's standard library, and none of this project's code.

    python3 tests/vectors/make.py            # writes them
    python3 tests/vectors/make.py --check    # fails where a file is not what this would write, or is missing, or is one too many

README.md says what is in a file.
"""

import hashlib
import json
import pathlib
import struct
import sys

FOLDER = pathlib.Path(__file__).parent / "v1"
# Vectors of computations, each with its own form; README.md names where they come from.
OTHERS = {"central-frames.json", "control-variates.json", "identity.json", "losses.json", "manifest-signature.json"}
vectors = {}


def vector(name, section, reads, data, about, fields=None, error=None, context=None, prefixes=None):
    """One file. Whether it is a good, a bad or a truncated message is in its name, and must fit what is expected of it."""
    assert name not in vectors, name
    assert ("_bad_" in name) == (error is not None), name
    assert name.endswith("_truncated") == (prefixes is not None), name
    assert (fields is None) == (error is not None or prefixes is not None), name
    entry = {"about": about, "section": section, "reads": reads}
    if context is not None:
        entry["context"] = context
    try:
        text = data.decode()
        if text.isprintable() or reads == "event":
            entry["text"] = text
    except UnicodeDecodeError:
        pass
    entry["bytes"] = data.hex()
    if fields is not None:
        entry["fields"] = fields
    if error is not None:
        entry["error"] = error
    if prefixes is not None:
        entry["prefixes"] = prefixes
    vectors[name] = entry


def compact(document):
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()


# --- Update frames: section 5 -------------------------------------------------------------------------------------------------------

UPDATE, CLIENT, MANIFEST, MODEL = "11" * 16, "22" * 16, "33" * 32, "44" * 32
ROUND = 0x01020304
LEAST = {1: -(2**7), 2: -(2**15), 3: -(2**23), 4: -(2**31)}


def least_width(coordinates):
    holds = lambda width, value: LEAST[width] <= value < -LEAST[width]
    return next(width for width in LEAST if all(holds(width, value) for value in coordinates))


def frame(coordinates, width=None, magic=b"UNSU", version=1, reserved=0, count=None, round=ROUND, width_byte=None):
    width = width or least_width(coordinates)
    count = len(coordinates) if count is None else count
    head = magic + struct.pack("<HBB", version, width if width_byte is None else width_byte, reserved)
    head += bytes.fromhex(UPDATE + CLIENT + MANIFEST + MODEL) + struct.pack("<QI", round, count)
    assert len(head) == 116
    return head + b"".join(value.to_bytes(width, "little", signed=True) for value in coordinates)


def frame_fields(coordinates, width, round=ROUND):
    return {"width": width, "update": UPDATE, "client": CLIENT, "manifest": MANIFEST, "model": MODEL, "round": str(round), "coordinates": coordinates}


def good_frame(name, about, coordinates, width=None, round=ROUND, context=None, **more):
    data = frame(coordinates, width, round=round)
    fields = {**frame_fields(coordinates, width or least_width(coordinates), round), **more}
    vector(f"update-frame{name}", "5", "update-frame", data, about, fields=fields, context=context)


def bad_frame(name, about, reason, data, field=None, at=None, problem="malformed", context=None):
    error = {"reason": reason, "field": field, "at": at, "problem": f"urn:unsaid:error:{problem}"}
    vector(f"update-frame_bad_{name}", "5", "update-frame", data, about, error=error, context=context)


def update_frames():
    good_frame("", "the example of section 5", [1, -2, 300])
    good_frame("-empty", "no coordinates: width 1", [])
    good_frame("-width-1", "the extremes of one byte", [-128, 127, 0, -1, 1])
    good_frame("-width-2", "the extremes of two bytes, and the first that one does not hold", [-32768, 32767, 128, -129])
    good_frame("-width-3", "the extremes of three bytes, and the first that two do not hold", [-8388608, 8388607, 32768, -32769])
    good_frame("-width-4", "the extremes of four bytes, and the first that three do not hold", [-(2**31), 2**31 - 1, 8388608, -8388609])
    good_frame("-round-0", "which no relay takes, and every reader reads", [5], round=0)
    good_frame("-round-greatest", "all bits of the round", [5], round=2**64 - 1)
    fixed = {"fixed_width": 2}
    good_frame("-fixed-width", "mode central, where the bound needs two bytes and these coordinates one", [1, -2, 100], 2, context=fixed)
    good_frame("-fixed-width-empty", "mode central, no coordinates", [], 2, context=fixed)
    weighted = {"parameters": 8, "max_weight": 600}
    steps = [1, -2, 3, -4, 5, -6, 7, -8]
    good_frame("-weight", "eight parameters, and the weight behind them", [*steps, 600], context=weighted, weight=600)
    good_frame("-weight-least", "a client of one example", [*steps, 1], context=weighted, weight=1)
    bad_frame("weight-zero", "a client of no example", "weight", frame([*steps, 0]), "weight", 124, "unacceptable", weighted)
    bad_frame("weight-above", "more than max_weight", "weight", frame([*steps, 601]), "weight", 132, "unacceptable", weighted)
    bad_frame("weight-negative", "less than nothing", "weight", frame([*steps, -1]), "weight", 124, "unacceptable", weighted)
    bad_frame("weight-missing", "as many coordinates as parameters", "count", frame(steps), "coordinates", 112, "unacceptable", weighted)

    bad_frame("magic", "another magic", "magic", frame([5], magic=b"UNSX"), "magic", 3)
    bad_frame("magic-shard", "a shard's magic", "magic", frame([5], magic=b"UNSD"), "magic", 3)
    bad_frame("version", "the next version", "version", frame([5], version=2), "version", 4, "version")
    bad_frame("version-zero", "a version that never was", "version", frame([5], version=0), "version", 4, "version")
    bad_frame("version-big-endian", "version 1, the other way around", "version", frame([5], version=0x0100), "version", 4, "version")
    bad_frame("width-zero", "coordinates of no bytes", "field", frame([], width_byte=0), "coordinate width", 6)
    bad_frame("width-five", "wider than there is", "field", frame([5] * 5, width_byte=5), "coordinate width", 6)
    bad_frame("width-above-least", "two bytes where one is enough", "field", frame([1, 1], 2), "coordinate width", 6)
    bad_frame("width-four-of-three", "four bytes where three are enough", "field", frame([-8388608, 8388607], 4), "coordinate width", 6)
    bad_frame("width-of-nothing", "no coordinates, of two bytes each", "field", frame([], 2), "coordinate width", 6)
    bad_frame("reserved", "the reserved byte", "field", frame([5], reserved=1), "reserved", 7)
    bad_frame("count-above", "one coordinate more than there is", "truncated", frame([5] * 4, count=5), "coordinates", 112)
    bad_frame("count-below", "one coordinate less than there is", "trailing", frame([5] * 4, count=3), None, 119)
    bad_frame("count-greatest", "16 gigabytes that are not there", "truncated", frame([], 1, count=2**32 - 1), "coordinates", 112)
    bad_frame("trailing", "a byte behind the end", "trailing", frame([5, 5]) + b"\0", None, 118)
    bad_frame("width-below-fixed", "mode central, the least width", "field", frame([1, -2, 100]), "coordinate width", 6, context=fixed)
    bad_frame("width-above-fixed", "mode central, a coordinate beyond the bound", "field", frame([40000]), "coordinate width", 6, context=fixed)
    bad_frame("empty", "no bytes", "truncated", b"", "magic", 0)
    vector("update-frame_truncated", "5", "update-frame", frame([1, -2, 300]), "every beginning of the example is refused", prefixes="all")


# --- Shards: section 9 --------------------------------------------------------------------------------------------------------------


def shard(labels, pixels, features=2, classes=3, magic=b"UNSD", version=1, reserved=0, examples=None):
    examples = len(labels) if examples is None else examples
    head = magic + struct.pack("<HHIII", version, reserved, examples, features, classes)
    assert len(head) == 20
    return head + bytes(labels) + bytes(pixels)


def bad_shard(name, about, reason, data, field=None, at=None):
    # Nobody answers for a file, so that there is no problem document.
    error = {"reason": reason, "field": field, "at": at, "problem": None}
    vector(f"shard_bad_{name}", "9", "shard", data, about, error=error)


def shards():
    labels, pixels = [0, 2], [0x00, 0xFF, 0x33, 0x66]
    fields = {"examples": 2, "features": 2, "classes": 3, "labels": labels, "pixels": pixels}
    vector("shard", "9", "shard", shard(labels, pixels), "the example of section 9", fields=fields)
    fields = {"examples": 0, "features": 784, "classes": 10, "labels": [], "pixels": []}
    vector("shard-empty", "9", "shard", shard([], [], 784, 10), "no examples", fields=fields)
    fields = {"examples": 2, "features": 1, "classes": 256, "labels": [0, 255], "pixels": [1, 254]}
    vector("shard-most-classes", "9", "shard", shard([0, 255], [1, 254], 1, 256), "every label that a byte can be", fields=fields)
    good = lambda **other: shard(labels, pixels, **other)
    bad_shard("magic", "an update frame's magic", "magic", good(magic=b"UNSU"), "magic", 3)
    bad_shard("version", "the next version", "version", good(version=2), "version", 4)
    bad_shard("reserved", "the first reserved byte", "field", good(reserved=1), "reserved", 6)
    bad_shard("reserved-second", "the second reserved byte", "field", good(reserved=256), "reserved", 7)
    bad_shard("features-zero", "examples of nothing", "field", shard(labels, [], 0), "features", 12)
    bad_shard("classes-zero", "no class", "field", shard([], [], classes=0), "classes", 16)
    bad_shard("classes-above", "more classes than a byte has values", "field", good(classes=257), "classes", 16)
    bad_shard("label", "a label that is no class", "field", shard([0, 3], pixels), "label", 21)
    bad_shard("trailing", "a byte behind the end", "trailing", shard(labels, [*pixels, 0]), None, 26)
    bad_shard("pixels-missing", "one example's pixels", "truncated", shard(labels, pixels[:2]), "pixels", 22)
    bad_shard("examples-greatest", "labels that are not there", "truncated", good(examples=2**32 - 1), "labels", 8)
    bad_shard("features-greatest", "pixels that are not there", "truncated", good(features=2**32 - 1), "pixels", 12)
    vector("shard_truncated", "9", "shard", shard(labels, pixels), "every beginning of the example is refused", prefixes="all")


# --- JSON ---------------------------------------------------------------------------------------------------------------------------

without = lambda document, *names: {name: value for name, value in document.items() if name not in names}


def good_json(name, section, reads, document, about, fields=None):
    """Read, and written again, it has these fields: those that it was sent with, unless it says otherwise."""
    vector(name, section, reads, compact(document), about, fields=document if fields is None else fields)


def bad_json(name, section, reads, data, about, field=None, problem=None, reason="json", context=None):
    data = data if isinstance(data, bytes) else compact(data)
    problem = problem and f"urn:unsaid:error:{problem}"
    error = {"reason": reason, "field": field, "at": None, "problem": problem}
    vector(name, section, reads, data, about, error=error, context=context)


def check_ins():
    good = {"client": CLIENT, "manifest": MANIFEST}
    good_json("check-in", "2.4", "check-in", good, "a client asks to take part")
    bad = lambda name, data, about, field: bad_json(f"check-in_bad_{name}", "2.4", "check-in", data, about, field, "malformed")
    bad("client-missing", without(good, "client"), "without a field", "client")
    bad("manifest-missing", without(good, "manifest"), "without a field", "manifest")
    bad("unknown", {**good, "name": "Ada"}, "a field that is not known", "name")
    bad("twice", compact(good)[:-1] + b',"client":"' + b"55" * 16 + b'"}', "a field that is there twice", "twice")
    bad("client-upper-case", {**good, "client": "AB" * 16}, "an id in upper case", "client")
    bad("client-short", {**good, "client": "22" * 15}, "an id of 15 bytes", "client")
    bad("client-long", {**good, "client": "22" * 17}, "an id of 17 bytes", "client")
    bad("client-null", {**good, "client": None}, "no id", "client")
    bad("manifest-odd", {**good, "manifest": "3" * 63}, "half a byte less", "manifest")
    bad("list", [CLIENT, MANIFEST], "no object", None)
    bad("trailing", compact(good) + b"x", "something behind the end", None)
    bad("utf-8", compact(good)[:-2] + b"\xff\"}", "no text", None)
    bad("empty", b"", "no bytes", None)
    vector("check-in_truncated", "2.4", "check-in", compact(good), "every beginning is refused", prefixes="all")


def answers():
    train = {"status": "train", "round": 3, "model": MODEL, "deadline_ms": 41250}
    wait = {"status": "wait", "round": 3, "retry_after_ms": 5000}
    finished = {"status": "finished", "round": 5, "model": MODEL}
    for name, reply in [("train", train), ("wait", wait), ("finished", finished)]:
        good_json(f"check-in-reply-{name}", "2.4", "check-in-reply", reply, "what to do")
    later = {**train, "a_later_field": [1]}
    good_json("check-in-reply-later", "11", "check-in-reply", later, "a field of a later relay is passed over", train)
    bad = lambda name, data, field: bad_json(f"check-in-reply_bad_{name}", "2.4", "check-in-reply", data, "an answer that is none", field)
    bad("status", {**train, "status": "dance"}, "status")
    bad("status-missing", without(train, "status"), "status")
    bad("deadline-missing", without(train, "deadline_ms"), "deadline_ms")
    bad("model-missing", without(finished, "model"), "model")
    bad("round-negative", {**wait, "round": -1}, "round")
    bad("round-fraction", compact(wait).replace(b'"round":3', b'"round":3.5'), "round")
    bad("round-text", {**wait, "round": "3"}, "round")
    vector("check-in-reply_truncated", "2.4", "check-in-reply", compact(train), "every beginning is refused", prefixes="all")

    reply = {"update": UPDATE, "round": 3, "duplicate": False}
    good_json("update-reply", "2.5", "update-reply", reply, "it is on disk")
    good_json("update-reply-duplicate", "2.5", "update-reply", {**reply, "duplicate": True}, "these bytes had been accepted before")
    for field in reply:
        bad_json(f"update-reply_bad_{field}-missing", "2.5", "update-reply", without(reply, field), "without a field", field)
    bad_json("update-reply_bad_duplicate-number", "2.5", "update-reply", {**reply, "duplicate": 0}, "a number is no truth", "duplicate")

    state = {"task": "mnist", "round": 3, "phase": "collecting", "model": MODEL, "manifest": MANIFEST}
    state |= {"checked_in": 4, "received": 1, "deadline_ms": 41250}
    idle = {**state, "phase": "idle", "checked_in": 0, "received": 0, "deadline_ms": None}
    good_json("round-state", "2.6", "round-state", state, "clients are training")
    good_json("round-state-idle", "2.6", "round-state", idle, "nobody has checked in")
    good_json("round-state-finished", "2.6", "round-state", {**idle, "phase": "finished"}, "the last round")
    good_json("round-state-paused", "2.6", "round-state", {**state, "paused": True}, "the operator lets nobody in")
    bad_json("round-state_bad_phase", "2.6", "round-state", {**state, "phase": "resting"}, "a phase that is none", "phase")
    bad_json("round-state_bad_task", "2.6", "round-state", {**state, "task": "../mnist"}, "a task id with other characters", "task")
    bad_json("round-state_bad_task-long", "2.6", "round-state", {**state, "task": "a" * 65}, "a task id of 65 characters", "task")
    bad_json("round-state_bad_checked-in", "2.6", "round-state", {**state, "checked_in": 2**32}, "more than 32 bits", "checked_in")

    metrics = {"round": 2, "model": MODEL, "clients": 4, "checked_in": 5, "bytes_up": 814624, "model_bytes": 407344}
    metrics |= {"duration_ms": 5210, "published_at_ms": 1700000000000, "accuracy": 0.875, "loss": 0.5}
    lineage = {"parent": MODEL, "manifest": MANIFEST}
    lineage |= {"spent": {"mode": "local", "unit": "update", "adjacency": "replace-one", "delta": 1e-5, "epsilon": 1.25}}
    good_json("round-metrics", "2.7", "round-metrics", metrics, "a round with figures")
    unknown = {**metrics, "accuracy": None, "loss": None}
    good_json("round-metrics-new", "2.7", "round-metrics", unknown, "a round that was not evaluated yet")
    central = {**metrics, "privacy": {"epsilon": 1.5, "rho": 0.0625, "next_clip_l2": 0.25}}
    good_json("round-metrics-central", "2.7", "round-metrics", central, "the relay adds the noise")
    back = {**metrics, "clients": 0, "bytes_up": 0, "rolled_back_to": 1}
    good_json("round-metrics-rollback", "2.7", "round-metrics", back, "the operator went back")
    good_json("round-metrics-lineage", "2.7", "round-metrics", {**metrics, **lineage}, "a client passes over the lineage", metrics)
    good_json("round-record", "2.7", "round-record", {**metrics, **lineage}, "an entry of the list of rounds, whole")
    for field in ["model", "clients", "published_at_ms"]:
        bad_json(f"round-metrics_bad_{field}-missing", "2.7", "round-metrics", without(metrics, field), "without a field", field)
    bad_json("round-metrics_bad_accuracy", "2.7", "round-metrics", {**metrics, "accuracy": "good"}, "no number", "accuracy")
    bad_json("round-metrics_bad_privacy", "2.7", "round-metrics", {**metrics, "privacy": {"epsilon": 1.5}}, "half of it", "rho")


def events():
    state = {"task": "mnist", "round": 3, "phase": "idle", "model": MODEL, "manifest": MANIFEST, "checked_in": 0, "received": 0, "deadline_ms": None}
    metrics = {"round": 2, "model": MODEL, "clients": 4, "checked_in": 5, "bytes_up": 1, "model_bytes": 2, "duration_ms": 3}
    metrics |= {"published_at_ms": 4, "accuracy": None, "loss": None}
    event = lambda name, data: b"event: " + name.encode() + b"\ndata: " + data + b"\nretry: 1000\n\n"
    good = lambda name, data, about: vector(f"event-{name}", "2.8", "event", event(name, compact(data)), about, fields={"event": name, "data": data})
    good("round", state, "a round opened")
    good("published", metrics, "a model can be downloaded")
    good("evaluated", {**metrics, "accuracy": 0.875, "loss": 0.5}, "with figures")
    later = event("something-later", b"{}")
    vector("event-later", "2.8", "event", later, "an event that is not known is passed over", fields={"event": "something-later", "data": None})
    bad = lambda name, data, about, field: bad_json(f"event_bad_{name}", "2.8", "event", data, about, field)
    bad("payload", event("round", compact(metrics)), "another event's data", "task")
    bad("json", event("published", compact(metrics)[:-1]), "no JSON", None)


KINDS = [
    ("not-found", 404), ("method-not-allowed", 405), ("malformed", 400), ("version", 400), ("too-large", 413), ("content-type", 415),
    ("wrong-manifest", 409), ("wrong-model", 409), ("wrong-round", 409), ("round-closed", 410), ("update-conflict", 409),
    ("already-reported", 409), ("not-checked-in", 403), ("unacceptable", 422), ("unauthorized", 401), ("task-exists", 409),
    ("not-paused", 409), ("identity-required", 401), ("identity-unknown", 403), ("identity-revoked", 403), ("bad-signature", 403),
    ("bad-invitation", 403), ("enrolment-closed", 403), ("enrolment-limited", 429), ("quota-spent", 403), ("relay-budget-spent", 403),
    ("too-many-requests", 429), ("unavailable", 503), ("internal", 500),
]  # fmt: skip


def problems():
    for kind, status in KINDS:
        document = {"type": f"urn:unsaid:error:{kind}", "title": "a title", "status": status, "detail": "for people"}
        about = "may be sent again" if kind in {"too-many-requests", "unavailable", "internal"} else "is not sent again as it is"
        good_json(f"problem-{kind}", "7", "problem", document, about)
    later = {"type": "urn:unsaid:error:something-later", "title": "a title", "status": 418, "detail": "for people"}
    good_json("problem-later", "7", "problem", later, "a type that is not known is read, and taken for a relay that does not answer")
    for field in later:
        bad_json(f"problem_bad_{field}-missing", "7", "problem", without(later, field), "without a field", field)
    bad_json("problem_bad_status", "7", "problem", {**later, "status": 70000}, "no status", "status")


def identities():
    enrol = {"public_key": "66" * 32, "signature": "77" * 64}
    invited = {"public_key": "66" * 32, "invitation": "88" * 16, "signature": "77" * 64}
    good_json("enrol", "12.2", "enrol", enrol, "a key asks to be known")
    good_json("enrol-invitation", "12.2", "enrol", invited, "with an invitation")
    good_json("enrol-null", "12.2", "enrol", {**invited, "invitation": None}, "null is as good as none", enrol)
    bad = lambda name, data, about, field: bad_json(f"enrol_bad_{name}", "12.2", "enrol", data, about, field, "malformed")
    bad("unknown", {**enrol, "name": "Ada"}, "a field that is not known", "name")
    bad("key-short", {**enrol, "public_key": "66" * 31}, "a key of 31 bytes", "public_key")
    bad("signature-upper-case", {**enrol, "signature": "AA" * 64}, "digits in upper case", "signature")
    bad("signature-missing", without(enrol, "signature"), "without a field", "signature")
    vector("enrol_truncated", "12.2", "enrol", compact(invited), "every beginning is refused", prefixes="all")
    good_json("enrolled", "12.2", "enrolled", {"identity": "99" * 32, "enrolment": "open"}, "the relay knows the key")
    bad_json("enrolled_bad_enrolment", "12.2", "enrolled", {"identity": "99" * 32, "enrolment": "shut"}, "a way that is none", "enrolment")
    good_json("relay-identity", "12.1", "relay-identity", {"relay": "66" * 32, "time_ms": 1700000000000}, "before a client signs")
    bad_json("relay-identity_bad_time", "12.1", "relay-identity", {"relay": "66" * 32, "time_ms": "now"}, "no number", "time_ms")


# --- Manifests: section 3 -----------------------------------------------------------------------------------------------------------

TERMS = {
    "protocol": 1,
    "task": "tiny",
    "title": "Tiny",
    "description": "",
    "model": {"input": [3], "layers": [{"type": "relu"}, {"type": "dense", "units": 2}], "loss": "softmax-cross-entropy"},
    "parameters": 8,
    "training": {"epochs": 1, "batch_size": 10, "optimizer": {"type": "sgd", "learning_rate": 0.125, "momentum": 0.0}},
    "data": {"kind": "classification", "features": 3, "classes": 2},
    "update": {"clip_l2": 1.0, "grid_step": 0.0009765625},
    "privacy": {"mode": "none"},
    "rounds": {"min_clients": 2, "target_clients": 3, "deadline_ms": 60000},
}


def terms(**changes):
    """The manifest with some fields changed: `update__clip_l2=2.0` is one of an object's."""
    changed = json.loads(json.dumps(TERMS))
    for path, value in changes.items():
        *outer, last = path.split("__")
        inside = changed
        for name in outer:
            inside = inside[name]
        inside[last] = value
    return changed


def manifests():
    example = {"mode": "example", "clip_l2": 1.0, "noise_multiplier": 1.125, "sampling_rate": 0.0625}
    central = {"mode": "central", "unit": "update", "trust": "relay", "mechanism": "discrete-gaussian", "adjacency": "add-remove"}
    central |= {"noise_multiplier": 1.0, "delta": 0.0009765625}
    adaptive = {**central, "adaptive_clip": {"initial_l2": 0.125, "quantile": 0.5, "rate": 0.25, "count_noise": 2.0}}
    tree = {**central, "unit": "participant", "mechanism": "tree-aggregation", "tree": {"restart_every": 16, "min_separation": 4}}
    strategy = {"aggregation": {"type": "trimmed-mean", "trim": 2}}
    good = {
        "": terms(),
        "-local": terms(privacy={"mode": "local", "noise_multiplier": 1.5}),
        "-example": terms(privacy=example),
        "-central": terms(privacy=central),
        "-central-adaptive": terms(privacy=adaptive),
        "-central-tree": terms(privacy=tree),
        "-weights": terms(update__max_weight=600, strategy={"aggregation": {"type": "weighted-mean", "max_weight": 600}}),
        "-strategy": terms(strategy=strategy),
        "-identity": terms(identity="invitation"),
        "-control-variates": terms(control_variates=True),
        "-extremes": terms(update={"clip_l2": 1.0, "grid_step": 2.0**-24}, privacy={"mode": "local", "noise_multiplier": 1e6}),
        "-text": terms(title="Ziffern „1“ \\ \"2\" 数字"),
    }
    for name, document in good.items():
        data = compact(document)
        fields = {"hash": hashlib.sha256(data).hexdigest(), "document": document}
        vector(f"manifest{name}", "3", "manifest", data, "the terms of a task", fields=fields)
    left_out = without(TERMS, "description")
    fields = {"hash": hashlib.sha256(compact(left_out)).hexdigest(), "document": TERMS}
    vector("manifest-no-description", "3", "manifest", compact(left_out), "a field that may be left out", fields=fields)

    def bad(name, document, about, field, reason="value", context=None):
        bad_json(f"manifest_bad_{name}", "3", "manifest", document, about, field, reason=reason, context=context)

    for field in TERMS:
        if field not in {"description", "protocol"}:
            bad(f"{field}-missing", without(TERMS, field), "without a field", field, "json")
    bad("unknown", {**TERMS, "colour": "red"}, "a field that is not known", "colour", "json")
    bad("unknown-inside", terms(update__colour="red"), "one in an object inside", "colour", "json")
    bad("unknown-privacy", terms(privacy={"mode": "none", "noise_multiplier": 1.0}), "noise where there is none", "noise_multiplier", "json")
    bad("twice", compact(TERMS)[:-1] + b',"task":"other"}', "a field that is there twice", "twice", "json")
    inside = compact(TERMS).replace(b'"clip_l2":1.0', b'"clip_l2":1.0,"clip_l2":100.0')
    bad("twice-inside", inside, "one in an object inside", "twice", "json")
    bad("protocol", terms(protocol=2), "the next version", None, "version")
    bad("protocol-later", {**terms(protocol=2), "colour": "red"}, "the next version, which may have other fields", None, "version")
    bad("task", terms(task="Tiny"), "a task id in upper case", "task", "json")
    bad("parameters-zero", terms(parameters=0), "no parameter", "parameters")
    bad("parameters-text", terms(parameters="8"), "no number", "parameters", "json")
    bad("features-zero", terms(data__features=0), "examples of nothing", "data.features")
    bad("classes-one", terms(data__classes=1), "nothing to tell apart", "data.classes")
    bad("kind", terms(data__kind="poetry"), "a data kind that is not known", "poetry", "json")
    bad("clip-zero", terms(update__clip_l2=0.0), "no norm", "update.clip_l2")
    bad("clip-negative", terms(update__clip_l2=-1.0), "less than nothing", "update.clip_l2")
    bad("grid-fine", terms(update__grid_step=2.0**-25), "finer than 2⁻²⁴ of the clip norm", "update.grid_step")
    bad("grid-coarse", terms(update__grid_step=1.5), "coarser than the clip norm", "update.grid_step")
    bad("weight-zero", terms(update__max_weight=0), "a weight of nothing", "update.max_weight")
    bad("weight-above", terms(update__max_weight=2**20 + 1), "a weight above 2²⁰", "update.max_weight")
    local = {"mode": "local", "noise_multiplier": 1.5}
    bad("weight-noise", terms(update__max_weight=600, privacy=local), "weights beside noise", "update.max_weight")
    bad("mode", terms(privacy={"mode": "magic"}), "a privacy mode that is not known", "magic", "json")
    bad("noise-zero", terms(privacy={**local, "noise_multiplier": 0.0}), "noise of nothing", "privacy.noise_multiplier")
    bad("noise-above", terms(privacy={**local, "noise_multiplier": 1000001.0}), "more than 10⁶", "privacy.noise_multiplier")
    bad("noise-missing", terms(privacy={"mode": "local"}), "no noise in a mode of noise", "noise_multiplier", "json")
    bad("rate-zero", terms(privacy={**example, "sampling_rate": 0.0}), "a step takes nothing", "privacy.sampling_rate")
    bad("rate-above", terms(privacy={**example, "sampling_rate": 1.5}), "no probability", "privacy.sampling_rate")
    bad("example-clip", terms(privacy={**example, "clip_l2": 2e6}), "more than 10⁶", "privacy.clip_l2")
    bad("delta-zero", terms(privacy={**central, "delta": 0.0}), "no δ", "privacy.delta")
    bad("delta-one", terms(privacy={**central, "delta": 1.0}), "no promise", "privacy.delta")
    bad("trust", terms(privacy={**central, "trust": "nobody"}), "a trust that is not known", "trust", "json")
    bad("mechanism", terms(privacy={**central, "mechanism": "laplace"}), "a mechanism that is not known", "mechanism", "json")
    bad("adjacency", terms(privacy={**central, "adjacency": "far"}), "an adjacency that is not known", "adjacency", "json")
    bad("tree-unit", terms(privacy={**tree, "unit": "update"}), "a tree protects participants", "unit", "json")
    bad("tree-zero", terms(privacy={**tree, "tree": {"restart_every": 0, "min_separation": 4}}), "a tree of no rounds", "privacy.tree")
    adaptive_tree = {**tree, "adaptive_clip": adaptive["adaptive_clip"]}
    bad("tree-adaptive", terms(privacy=adaptive_tree), "noise in the nodes of a tree is for one norm", "privacy.tree")
    bad("min-zero", terms(rounds__min_clients=0), "a round of nobody", "rounds.min_clients")
    bad("target-below", terms(rounds__target_clients=1), "less than the least", "rounds.target_clients")
    bad("deadline-zero", terms(rounds__deadline_ms=0), "no time", "rounds.deadline_ms")
    bad("identity", terms(identity="passport"), "an identity that is none", "identity", "json")
    bad("control-variates", terms(control_variates=1), "a number is no truth", "control_variates", "json")
    bad("strategy", terms(strategy="mean"), "no object", "strategy", "json")
    bad("utf-8", compact(TERMS).replace(b'"Tiny"', b'"\xff"'), "no text", None, "json")
    bad("trailing", compact(TERMS) + b"{}", "something behind the end", None, "json")
    announced = hashlib.sha256(compact(terms(title="Other"))).hexdigest()
    bad("hash", terms(), "other bytes than were announced", None, "hash", {"announced": announced})
    vector("manifest_truncated", "3", "manifest", compact(TERMS), "every beginning is refused", prefixes="all")


# --- Models: section 4 --------------------------------------------------------------------------------------------------------------

KERNEL = [0.5, -1.0, 0.25, 2.0, -0.125, 3.0]
BIAS = [1.0, -1.0]


def tensor(shape, start, end, dtype="F32"):
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


def safetensors(header, data, pad=True, length=None):
    text = header if isinstance(header, bytes) else compact(header)
    if pad:
        text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def models():
    floats = lambda values: struct.pack(f"<{len(values)}f", *values)
    context = {"model": TERMS["model"]}
    by_name = {"layers.1.bias": tensor([2], 0, 8), "layers.1.kernel": tensor([3, 2], 8, 32)}
    data = floats(BIAS + KERNEL)
    whole = safetensors(by_name, data)

    def good(name, file, about, control=()):
        fields = {"hash": hashlib.sha256(file).hexdigest(), "parameters": KERNEL + BIAS, "control": list(control)}
        vector(f"model{name}", "4", "model", file, about, fields=fields, context=context)

    good("", whole, "kernel [3, 2] and bias [2] of one dense layer, behind one without parameters")
    first = {"layers.1.kernel": tensor([3, 2], 0, 24), "layers.1.bias": tensor([2], 24, 32)}
    good("-kernel-first", safetensors(first, floats(KERNEL + BIAS)), "tensors may lie in any order")
    good("-unpadded", safetensors(by_name, data, pad=False), "a header need not be padded")
    with_map = safetensors({"__metadata__": {"round": "3", "title": "„1“"}, **by_name}, data)
    good("-metadata", with_map, "a map of strings beside the tensors, which have the same bytes")
    controls = {f"control.{name}": tensor(entry["shape"], *(32 + at for at in entry["data_offsets"])) for name, entry in by_name.items()}
    control = [value / 2 for value in KERNEL + BIAS]
    both = safetensors({**by_name, **controls}, data + floats(control[6:] + control[:6]))
    good("-control", both, "with a control variate", control)

    def bad(name, file, about, reason, field=None):
        error = {"reason": reason, "field": field, "at": None, "problem": None}
        vector(f"model_bad_{name}", "4", "model", file, about, error=error, context=context)

    bad("dtype", safetensors({**by_name, "layers.1.bias": tensor([2], 0, 8, "I32")}, data), "other numbers", "tensors", "layers.1.bias")
    bad("shape", safetensors({**by_name, "layers.1.kernel": tensor([2, 3], 8, 32)}, data), "the shape the other way around", "tensors", "layers.1.kernel")
    bad("missing", safetensors({"layers.1.bias": by_name["layers.1.bias"]}, floats(BIAS)), "no kernel", "tensors")
    bad("more", safetensors({**by_name, "layers.2.bias": tensor([0], 32, 32)}, data), "one tensor more", "tensors")
    other = {"layers.1.bias": by_name["layers.1.bias"], "layers.0.kernel": by_name["layers.1.kernel"]}
    bad("name", safetensors(other, data), "another layer's", "tensors", "layers.1.kernel")
    for name, bits in [("nan", 0x7FC00000), ("infinite", 0xFF800000)]:
        file = safetensors(by_name, data[:8] + struct.pack("<I", bits) + data[12:])
        bad(name, file, "the first number of the kernel", "not finite", "layers.1.kernel")
    overlap = {**by_name, "layers.1.kernel": tensor([3, 2], 4, 28)}
    bad("overlap", safetensors(overlap, data), "two tensors that share bytes", "format")
    outside = {**by_name, "layers.1.kernel": tensor([3, 2], 12, 36)}
    bad("outside", safetensors(outside, data), "a tensor that ends behind the file", "format")
    bad("trailing", whole + b"\0\0\0\0", "bytes that are no tensor's", "tensors")
    bad("header-length", safetensors(by_name, data, length=2**64 - 1), "a header that is not there", "format")
    bad("header-json", safetensors(b'{"layers.1.bias"', data), "no JSON", "format")
    bad("header-utf-8", safetensors(b'{"\xff":1}', data), "no text", "format")
    bad("header-list", safetensors(b"[]", data), "no object", "format")
    vector("model_truncated", "4", "model", whole, "every beginning is refused", prefixes="all", context=context)


def main():
    for make in [update_frames, shards, check_ins, answers, events, problems, identities, manifests, models]:
        make()
    wanted = {f"{name}.json": json.dumps(entry, indent=1, ensure_ascii=False) + "\n" for name, entry in vectors.items()}
    found = {path.name for path in FOLDER.glob("*.json")} - OTHERS
    if sys.argv[1:] == ["--check"]:
        wrong = [name for name, text in wanted.items() if name not in found or (FOLDER / name).read_text() != text]
        wrong += sorted(found - wanted.keys())
        sys.exit(f"not what make.py writes: {', '.join(wrong)}" if wrong else None)
    for name in found - wanted.keys():
        (FOLDER / name).unlink()
    for name, text in wanted.items():
        (FOLDER / name).write_text(text)
    print(f"{len(wanted)} vectors")


if __name__ == "__main__":
    main()
