"""Covert reinforcement learning, played small: rollouts that have to leave through the tap."""
