"""Kit for proving kernels, ours and users': the enumerator that takes the place of random numbers."""

from gfnmc.testing.enumerator import Enumeration, ScriptedDraws, enumerate_decisions, move_matrix, transition_matrix

__all__ = ["Enumeration", "ScriptedDraws", "enumerate_decisions", "move_matrix", "transition_matrix"]
