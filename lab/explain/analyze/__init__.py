"""Faults across resources: references that lead nowhere, conflicts, rules without effect."""
