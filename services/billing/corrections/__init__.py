"""Corrections of recorded calls: what they count and cost in truth, and the money between. The record of a correction
is kept by usage, which is told; notes about periods that are closed are made from the same event."""
