"""Models of other frameworks, turned into ONNX: what an archive is by its content, what in it is refused unopened, and
the program that converts it, which runs in a sandbox, perhaps by an interpreter that has only the converter's packages.
Such a module imports numpy, the standard library and its siblings, and its framework only when it is used."""
