"""Test cases of routes: requests, and what a mesh has to make of them."""
