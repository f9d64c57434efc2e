"""Writes the golden files again."""

from tests.lab.mesh import golden

for manifest in golden.MANIFESTS:
    golden.output(manifest).write_text(golden.rendered(manifest), encoding="utf-8")
