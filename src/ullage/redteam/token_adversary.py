"""A token adversary: one that plays the token game, and that the registry can serve as well."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from ullage.audit.noise_model import FlipCurve, NoiseModel
from ullage.model.loading import Precision
from ullage.model.reference import Reference
from ullage.redteam.adversary import Adversary, Cheat, Setting
from ullage.redteam.coded_choice import CodedChooser, Law, read_coded
from ullage.redteam.token_game import Agents, Reading, Size, Traffic

CUTOFF = 0.3


def usual_noise(vocabulary_size: int) -> NoiseModel:
    """A noise model as bfloat16 servers have it; the suite prices with it where nothing was calibrated."""
    return NoiseModel(
        curve=FlipCurve(0.01, 4.0, CUTOFF),
        supremum=FlipCurve(0.012, 4.0, CUTOFF),
        vocabulary_size=vocabulary_size,
        floor=1e-4,
        tokens=0,
        mismatches=0,
        sessions=0,
    )


@dataclass(frozen=True)
class TokenAdversary:
    """One way to cheat in the token game.

    `enlist` makes fresh agents for one game. `noise`: what the verifier prices with, if the adversary had a
    hand in it. `size` limits a game that is dear to play.
    """

    name: str
    summary: str
    enlist: Callable[[Reference, bytes], Agents]
    hides: bool = True
    noise: Callable[[NoiseModel], NoiseModel] | None = None
    size: Size | None = None
    dtype: str | None = None
    """The precision that a server of it needs; None: the declared one."""

    def sized(self, size: Size) -> Size:
        if self.size is None:
            return size
        return Size(min(size.messages, self.size.messages), min(size.tokens, self.size.tokens))

    def as_adversary(self) -> Adversary:
        """For `ullage redteam serve`."""

        def build(setting: Setting) -> Cheat:
            dtype: Precision = "float32" if (self.dtype or setting.dtype) == "float32" else "bfloat16"
            reference = Reference.load(setting.model_folder, dtype)
            agents = self.enlist(reference, setting.payload or b"\0")
            return Cheat(agents.model, agents.chooser)

        return Adversary(self.name, self.summary, build, needs_payload=self.hides)

    def limited(self, messages: int, tokens: int) -> TokenAdversary:
        return replace(self, size=Size(messages, tokens))


def coded(
    name: str,
    summary: str,
    law_for: Callable[[Reference], Law],
    noise: Callable[[NoiseModel], NoiseModel] | None = None,
    size: Size | None = None,
) -> TokenAdversary:
    """The adversary that lets an arithmetic decoder of the payload choose by a law on near-ties."""

    def enlist(reference: Reference, payload: bytes) -> Agents:
        law = law_for(reference)
        chooser = CodedChooser(law, payload)

        def read(traffic: Traffic) -> list[Reading]:
            return [Reading(0, read_coded(law, traffic.by_step()), stream=True)]

        return Agents(reference.model, chooser, read, lambda: chooser.determined)

    # In float32: the receiver can only follow numbers that it can compute again.
    return TokenAdversary(name, summary, enlist, noise=noise, size=size, dtype="float32")
