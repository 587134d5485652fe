"""Evidence, changed in one place: by bytes, by DER elements, by events, by whole items of other machines. None may be accepted.

`python -m tests.attacks.evidence` changes every byte of a bundle, then runs many of these, and says how many of each kind were tried.
"""

from __future__ import annotations

import argparse
import copy
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from pipeline import chain, der, evidence, keys, provision
from pipeline.evidence import EvidenceError, Item, Kind
from pipeline.reference import Reference
from pipeline.verify import verify_evidence
from pipeline.verify_certificates import VerificationError
from tests.pipeline.forge import BOX, NONCE, REPORT, Machine, plain_fields, seed_key
from tests.pipeline.forge_tpm import TpmMachine, pack_log, private_key

CERTIFICATES = (Kind.DEVICE, Kind.MONITOR, Kind.BOX, Kind.ENDORSEMENT, Kind.RELEASE, Kind.DEVICE_CERTIFICATE)
CONSTRUCTED = 0x20
ED25519, OTHERS = (
    bytes.fromhex("06032b6570"),
    (bytes.fromhex("06032b6571"), bytes.fromhex("06032b656e")),
)  # Ed448, X25519


@dataclass(frozen=True)
class Element:
    """A DER element inside some bytes: where it begins, where its content begins, and where it ends."""

    start: int
    content: int
    end: int


def elements(data: bytes, start: int, end: int) -> Iterator[Element]:
    """Every element of some DER, the outer before the inner."""
    while start < end:
        length, at = data[start + 1], start + 2
        if length >= 0x80:
            at += length - 0x80
            length = int.from_bytes(data[start + 2 : at], "big")
        yield Element(start, at, at + length)
        if data[start] & CONSTRUCTED:
            yield from elements(data, at, at + length)
        start = at + length


class Attacker:
    """A good bundle, the material of other machines and boots, and one change a seed."""

    def __init__(self, good: Machine, reference: Reference) -> None:
        self.good, self.reference = copy.deepcopy(good), reference  # before its certificates are made
        self.items = good.items()
        self.strangers = [item for other in strangers(type(good)) for item in other.items()]
        self.kinds: dict[str, Callable[[random.Random], list[Item] | bytes]] = {
            "bit": self.bit,
            "bytes": self.overwritten,
            "length": self.resized,
            "structure": self.restructured,
            "other algorithm": self.algorithm,
            "events": self.event,
            "swapped links": self.swapped,
            "another machine's": self.stranger,
            "replayed nonce": self.replayed,
            "other box's hash": self.other_box,
            "reflected transcript": self.reflected,
            "missing or twice": self.counted,
            "bundle": self.bundle,
        }

    def change(self, seed: int) -> tuple[str, bytes]:
        """The kind of a seed's change, and the changed bundle; now and then it is the good one."""
        choice = random.Random(seed)
        name = choice.choice(list(self.kinds))
        made = self.kinds[name](choice)
        return name, made if isinstance(made, bytes) else evidence.pack(made)

    def is_accepted(self, bundle: bytes) -> bool:
        """Whether the verifier takes it. Any other failure than its own two is a defect, and is not caught."""
        try:
            verify_evidence(bundle, self.reference, NONCE)
        except (VerificationError, EvidenceError):
            return False
        return True

    def every_byte(self, stride: int = 1) -> Iterator[bytes]:
        """The bundle with one byte changed: each of them, or every `stride`th."""
        good = evidence.pack(self.items)
        for at in range(0, len(good), stride):
            yield good[:at] + bytes([good[at] ^ random.Random(at).randrange(1, 256)]) + good[at + 1 :]

    def replaced(self, place: int, data: bytes) -> list[Item]:
        """The items with another content in one place."""
        return [*self.items[:place], Item(self.items[place].kind, data), *self.items[place + 1 :]]

    def place(self, choice: random.Random, *kinds: Kind) -> int:
        """The place of a random item, of one of these kinds."""
        return choice.choice([at for at, item in enumerate(self.items) if not kinds or item.kind in kinds])

    def bit(self, choice: random.Random) -> list[Item]:
        place = self.place(choice)
        data = bytearray(self.items[place].data)
        data[choice.randrange(len(data))] ^= 1 << choice.randrange(8)
        return self.replaced(place, bytes(data))

    def overwritten(self, choice: random.Random) -> list[Item]:
        place = self.place(choice)
        data = bytearray(self.items[place].data)
        start = choice.randrange(len(data))
        size = min(choice.choice((1, 2, 4, 32, 64)), len(data) - start)
        data[start : start + size] = choice.choice((bytes(size), b"\xff" * size, choice.randbytes(size)))
        return self.replaced(place, bytes(data))

    def resized(self, choice: random.Random) -> list[Item]:
        place = self.place(choice)
        data = self.items[place].data
        at, size = choice.randrange(len(data)), choice.choice((1, 2, 16, 256))
        cut, twice = data[:at] + data[at + size :], data[: at + size] + data[at:]
        return self.replaced(place, choice.choice((data[:at], data + choice.randbytes(size), cut, twice)))

    def restructured(self, choice: random.Random) -> list[Item]:
        """An element of a certificate removed, doubled, swapped for another, or given another tag; outer lengths made to fit."""
        place = self.place(choice, *CERTIFICATES)
        data = self.items[place].data
        found = list(elements(data, 0, len(data)))[1:]
        one, two = choice.choice(found), choice.choice(found)
        whole = data[one.start : one.end]
        other = choice.choice(
            (
                b"",
                whole * 2,
                data[two.start : two.end],
                bytes([choice.randrange(256)]) + whole[1:],
                der.element(data[one.start], b""),
            )
        )
        return self.replaced(place, rebuilt(data, one, other))

    def algorithm(self, choice: random.Random) -> list[Item]:
        """Another algorithm in one of its places, or in all."""
        place = self.place(choice, *CERTIFICATES)
        data, other = self.items[place].data, choice.choice(OTHERS)
        if choice.random() < 0.3:
            return self.replaced(place, data.replace(ED25519, other))
        at = choice.choice([at for at in range(len(data)) if data.startswith(ED25519, at)])
        return self.replaced(place, data[:at] + other + data[at + len(other) :])

    def event(self, choice: random.Random) -> list[Item]:
        """Events of the log left out, doubled, swapped, or moved to another PCR."""
        if not isinstance(self.items[-1], Item) or all(item.kind is not Kind.EVENT_LOG for item in self.items):
            return self.bit(choice)
        machine = TpmMachine()
        events = machine.events
        one, two = choice.randrange(len(events)), choice.randrange(len(events))
        action = choice.randrange(4)
        if action == 0:
            del events[one]
        elif action == 1:
            events.insert(two, events[one])
        elif action == 2:
            events[one], events[two] = events[two], events[one]
        else:
            events[one].pcr = choice.randrange(24)
        log = pack_log(events)
        place = self.place(choice, Kind.EVENT_LOG)
        return self.replaced(place, log)

    def swapped(self, choice: random.Random) -> list[Item]:
        """The contents of two items of different kinds, or of two release links, exchanged."""
        one, two = self.place(choice), self.place(choice)
        items = self.replaced(one, self.items[two].data)
        items[two] = Item(self.items[two].kind, self.items[one].data)
        return items

    def stranger(self, choice: random.Random) -> list[Item]:
        """An item of another machine, owner, boot, box or nonce in its place: a replay."""
        place = self.place(choice)
        kind = self.items[place].kind
        return self.replaced(place, choice.choice([item.data for item in self.strangers if item.kind is kind]))

    def from_other(self, other: Machine, *kinds: Kind) -> list[Item]:
        """The items with those of these kinds as another machine makes them."""
        layers = {Kind.BOX: BOX, Kind.ENDORSEMENT: "endorsement"}
        made = {kind: other.certificate(layers[kind]) if kind in layers else other.witness_data() for kind in kinds}
        return [Item(item.kind, made.get(item.kind, item.data)) for item in self.items]

    def replayed(self, choice: random.Random) -> list[Item]:
        """What the very same box said to another challenge: endorsement, report, or both."""
        other = self.another()
        other.nonce = choice.randbytes(32)
        both = (Kind.ENDORSEMENT, Kind.WITNESS_DATA)
        return self.from_other(other, *choice.choice((both, both[:1], both[1:])))

    def other_box(self, choice: random.Random) -> list[Item]:
        """A box of the same machine with another hash, name, or both answers this challenge, with a key of its own or the good one's."""
        other, dice = self.another(), self.another().dice[BOX]
        kept = choice.randrange(3)
        if kept != 1:
            dice.code = chain.sha512(choice.randbytes(64))
        if kept != 2:
            dice.configuration = chain.configuration(f"box-{choice.randrange(1 << 32):x}", 1, other.posture)
        other.dice[BOX] = dice
        if choice.random() < 0.5:
            other.signers[BOX] = seed_key(f"box {choice.random()}")
            mine, monitor = (keys.public_bytes(other.signers[layer]) for layer in (BOX, "monitor"))
            leaf = keys.public_bytes(other.signers["endorsement"])
            other.fields |= {BOX: plain_fields(mine, monitor), "endorsement": plain_fields(leaf, mine, leaf=True)}
        return self.from_other(other, *choice.choice(((Kind.BOX,), (Kind.BOX, Kind.ENDORSEMENT, Kind.WITNESS_DATA))))

    def reflected(self, choice: random.Random) -> list[Item]:
        """What good keys sign in the other role: challenge and report exchanged in data, signature, or endorsement."""
        other = self.another()
        report = choice.choice((REPORT, NONCE, choice.randbytes(32)))
        said = choice.choice((report, NONCE))
        signed = [data for data in (NONCE + report, report + report, said) if data != said + NONCE]
        other.data = said + other.signers["endorsement"].sign(choice.choice(signed))
        hashed = chain.sha512(other.data)
        other.bound = choice.choice(
            (NONCE + hashed, hashed[:32] + NONCE + hashed[32:], report + hashed, hashed + NONCE)
        )
        return self.from_other(other, Kind.ENDORSEMENT, Kind.WITNESS_DATA)

    def another(self) -> Machine:
        """The same machine, to be changed."""
        return copy.deepcopy(self.good)

    def counted(self, choice: random.Random) -> list[Item]:
        place = self.place(choice)
        if choice.random() < 0.5:
            return [*self.items[:place], *self.items[place + 1 :]]
        return [*self.items, self.items[place]]

    def bundle(self, choice: random.Random) -> bytes:
        """The bundle's own bytes: magic, version, kinds, lengths."""
        data = bytearray(evidence.pack(self.items))
        at, heads = 16, [*range(16)]
        for item in self.items:
            heads += range(at, at + 8)
            at += 8 + len(item.data)
        data[choice.choice(heads)] ^= 1 << choice.randrange(8)
        return bytes(data)


def rebuilt(data: bytes, changed: Element, content: bytes) -> bytes:
    """The DER with one element replaced, and every length around it right again."""
    for outer in reversed(
        [e for e in elements(data, 0, len(data)) if e.content <= changed.start and changed.end <= e.end]
    ):
        if data[outer.start] & CONSTRUCTED:
            inner = data[outer.content : changed.start] + content + data[changed.end : outer.end]
            content, changed = der.element(data[outer.start], inner), outer
    return data[: changed.start] + content + data[changed.end :]


def strangers(kind: type[Machine]) -> list[Machine]:
    """Machines that differ in one thing: nonce, box, monitor, secret; with a TPM also the owner, the attestation key and firmware."""
    found = [kind() for _ in range(5)]
    found[0].nonce = bytes(32)
    found[1].secret = bytes(range(32, 64))
    found[1].derive()
    found[2].posture = 0
    found[2].derive()
    found[3].data = b"canaries gone".ljust(32, b"\0") + bytes(64)
    found[4].release = Machine(descriptor=b"x" * 4096).release
    if kind is TpmMachine:
        owners, keys_of, firmware = TpmMachine(), TpmMachine(), TpmMachine("bios")
        owners.authority = provision.OwnerKeys(seed_key("other owner"), private_key("other owner"))
        keys_of.attestation = keys_of.signer = private_key("other attestation")
        found += [owners, keys_of, firmware]
    return found


@dataclass
class Total:
    """Changes tried, by kind, and those that were accepted: seeds, or offsets with a minus before them."""

    tried: Counter[str] = field(default_factory=Counter)
    accepted: list[int] = field(default_factory=list)

    def line(self) -> str:
        return f"{self.tried.total()} changed bundles {dict(self.tried)}: accepted {len(self.accepted)} {self.accepted[:10]}"


def campaign(attacker: Attacker, first: int, count: int, stride: int = 0) -> Total:
    """Try the changes of `count` seeds, and, with a stride, every byte or some."""
    total, good = Total(), evidence.pack(attacker.items)
    for number, bundle in enumerate(attacker.every_byte(stride) if stride else ()):
        total.tried["every byte" if stride == 1 else f"every {stride}th byte"] += 1
        if attacker.is_accepted(bundle):
            total.accepted.append(-number * stride)
    for seed in range(first, first + count):
        name, bundle = attacker.change(seed)
        if bundle != good:
            total.tried[name] += 1
            if attacker.is_accepted(bundle):
                total.accepted.append(seed)
    return total


def attacker_of(machine: Machine, folder: Path) -> Attacker:
    """An attacker on what this machine made."""
    return Attacker(machine, machine.reference(folder))


def main(argv: list[str] | None = None) -> int:
    """Run a campaign on a chain with a TPM, and say what came of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--count", type=int, default=100_000, help="changes to try, besides every byte (default 100000)"
    )
    parser.add_argument("--seed", type=int, default=0, help="the first one's seed (default 0)")
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        total = campaign(attacker_of(TpmMachine(), Path(folder)), options.seed, options.count, 1)
    print(total.line())
    return 1 if total.accepted else 0


if __name__ == "__main__":
    sys.exit(main())
