"""Settings that every test shares."""

from ullage.model import instruction_set

instruction_set.pin()
