"""What a pickle would import is said, and what TorchScript would not write is refused: each gadget by which somebody
got past a public scanner, by the advisory that tells of it."""

import pickle
from collections import OrderedDict
from pathlib import Path

import pytest

from services.registry.validation.frameworks.pickles import check, imported, told
from services.registry.validation.report import Refused

# Functions that scanners did not know to be harmful. picklescan's advisories unless another is named; those without an
# own number are of its lists of July to December 2025 (GHSA-f7qq-56ww-84cr and after).
GADGETS = {
    "os system": "the classic", "posix system": "the classic", "nt system": "the classic",
    "builtins eval": "the classic", "builtins exec": "the classic", "__builtin__ eval": "the classic, Python 2",
    "builtins getattr": "the classic", "subprocess Popen": "the classic", "runpy _run_code": "the classic",
    "pip main": "CVE-2025-1716, GHSA-655q-fx9r-782v", "pip._internal main": "CVE-2025-1716",
    "pkgutil resolve_name": "GHSA-vvpj-8cmc-gx39", "importlib import_module": "picklescan issue 66",
    "operator attrgetter": "picklescan issue 66", "operator methodcaller": "picklescan issue 66",
    "marshal loads": "picklescan pull request 74", "types FunctionType": "picklescan pull request 74",
    "asyncio.unix_events _UnixSubprocessTransport._start": "CVE-2025-10157, GHSA-f7qq-56ww-84cr",
    "timeit timeit": "picklescan", "code InteractiveInterpreter.runcode": "modelscan pull request 313",
    "cProfile run": "modelscan pull request 313", "cProfile runctx": "modelscan pull request 313",
    "profile run": "modelscan pull request 313", "trace Trace.run": "picklescan", "trace Trace.runctx": "picklescan",
    "pdb Pdb": "picklescan", "bdb Bdb.run": "picklescan", "doctest debug_script": "picklescan",
    "ensurepip _run_pip": "modelscan pull request 313", "ctypes CDLL": "picklescan", "webbrowser open": "picklescan",
    "idlelib.pyshell ModifiedInterpreter.runcode": "picklescan", "idlelib.run Executive.runcode": "picklescan",
    "idlelib.debugobj ObjectTreeItem.SetText": "picklescan", "lib2to3.pgen2.grammar Grammar.loads": "picklescan",
    "lib2to3.pgen2.pgen ParserGenerator.make_label": "picklescan", "numpy.f2py.crackfortran getlincoef": "picklescan",
    "numpy.testing._private.utils runstring": "picklescan", "torch load": "picklescan", "torch hub.load": "picklescan",
    "torch.utils.bottleneck.__main__ run_autograd_prof": "picklescan",
    "torch.utils.bottleneck.__main__ run_cprofile": "picklescan",
    "torch._dynamo.guards GuardBuilder.get": "picklescan", "torch.utils.data.datapipes.utils.decoder basichandlers":
    "picklescan", "torch.fx.experimental.symbolic_shapes ShapeEnv.evaluate_guards_expression": "picklescan",
    "torch.utils._config_module ConfigModule.load_config": "picklescan", "torch.jit.unsupported_tensor_ops "
    "execWrapper": "picklescan", "torch.utils.collect_env run": "picklescan", "torch.serialization load": "picklescan",
    "torch._inductor.codecache compile_file": "picklescan", "distutils.file_util write_file": "picklescan",
    "io FileIO": "picklescan", "urllib.request urlopen": "picklescan", "linecache getlines": "picklescan",
    "logging.config fileConfig": "picklescan", "multiprocessing.util spawnv_passfds": "picklescan",
    "site execsitecustomize": "picklescan", "ssl get_server_certificate": "picklescan",
    "test.support.script_helper assert_python_ok": "picklescan", "joblib load": "joblib",
    "pandas read_pickle": "pandas", "functools partial": "fickling", "collections namedtuple": "a class made by eval",
    "pty spawn": "fickling pull request 108", "pickle loads": "modelscan issue 267, GHSA-84r2-jw7c-4r5q",
    "_pickle loads": "GHSA-84r2-jw7c-4r5q", "numpy __builtins__": "modelscan issue 89",
    "builtins dict.get": "modelscan issue 89", "numpy core._internal.sys.modules": "modelscan issue 89",
    "importlib.util find_spec": "picklescan issue 66", "_operator attrgetter": "GHSA-955r-x9j8-7rhh",
    "_io FileIO": "fickling pull request 210", "shutil copyfile": "fickling pull request 210",
    "venv create": "GHSA-vqmv-47xg-9wpr", "httplib HTTPSConnection": "GHSA-hgrh-qx5j-jfwx",
    "aiohttp request": "GHSA-hgrh-qx5j-jfwx", "requests get": "GHSA-hgrh-qx5j-jfwx",
    "mlflow.projects.backend.local _run_entry_point": "saferpickle issue 18",
    "pandas.io.parsers.readers read_csv": "saferpickle issue 18",
    "torch.distributed.rpc rpc_sync": "CVE-2024-5480",
    "torch.distributed.nn.api.remote_module RemoteModule": "CVE-2024-48063",
    "torch.jit.annotations parse_type_line": "CVE-2022-45907",
    "__torch__ x;os": "TorchScript's own name, extended", "torch.jit._pickle ..os": "TorchScript's own name, extended",
    "__torch__.a/b M": "TorchScript's own name, extended", "torch Storage": "PyTorch's own name, another thing",
}  # fmt: skip


def calls(module: str, name: str) -> bytes:
    """Calls a function with a text, as protocol 2 has it."""
    return b"\x80\x02c" + f"{module}\n{name}\n".encode() + b"X\x04\x00\x00\x00true\x85R."


@pytest.mark.parametrize("gadget", GADGETS)
def test_no_gadget_passes(gadget: str) -> None:
    module, name = gadget.split(" ", 1)
    data = calls(module, name)
    with pytest.raises(Refused) as caught:
        check(data, "data.pkl")
    assert caught.value.finding.code == "PICKLED_OBJECT"
    assert caught.value.finding.where == "data.pkl"
    assert imported(data) == [f"{module}.{name}"]
    assert f"{module}.{name}" in told(data)


SHORT = b"\x8c\x05posix\x8c\x06system"
TRICKS = {
    "names from the stack": b"\x80\x04" + SHORT + b"\x93\x8c\x04true\x85R.",
    "names from the memo, GHSA-9gvj-pp9x-gcfr": b"\x80\x04\x8c\x05posix\x94\x8c\x06system\x940h\x00h\x01\x93)R.",
    "another memo than scanners count, picklescan issue 22": b"\x80\x02X\x05\x00\x00\x00posixq\x07X\x06\x00\x00\x00"
    b"systemq\x0900h\x07h\x09\x93)R.",
    "two pickles, stacked": pickle.dumps({}, 2) + calls("os", "system"),
    "a pickle behind text": pickle.dumps("x", 2) + b"cos\nsystem\n(X\x01\x00\x00\x00atR.",
    "INST": b"(X\x04\x00\x00\x00trueios\nsystem\n.",
    "OBJ": b"(cos\nsystem\nX\x04\x00\x00\x00trueo.",
    "NEWOBJ_EX": b"\x80\x04cos\nsystem\n)}\x92.",
    "extension registry": b"\x80\x02\x82\x01.",
    "the result thrown away, fickling": b"\x80\x02cos\nsystem\nX\x04\x00\x00\x00true\x85R0N.",
    "harm before what breaks": calls("os", "system")[:-1] + b"\xff\xff",
    "cut off after the harm": calls("os", "system")[:-1],
    "a persistent id as text": b"Pabc\n.",
    "protocol of the future": b"\x80\x09cos\nsystem\n)R.",
    "a name that is not ASCII": "\x80\x02cos\nsüstem\n)R.".encode("latin-1"),
    "a length past the end": b"\x80\x02X\xff\xff\xff\x7fabc.",
    "a memo of 800 million places": b"\x80\x02Nr\x00\x00\x00\x30.",
    "nothing": b"",
    "noise": bytes(range(256)),
}


@pytest.mark.parametrize("trick", TRICKS)
def test_no_trick_passes(trick: str) -> None:
    with pytest.raises(Refused) as caught:
        check(TRICKS[trick], "constants.pkl")
    assert caught.value.finding.code == "PICKLED_OBJECT"
    imported(TRICKS[trick])  # never fails


@pytest.mark.parametrize("trick", [name for name in TRICKS if b"system" in TRICKS[name] and "EX" not in name])
def test_what_a_trick_would_import_is_said_where_it_can_be(trick: str) -> None:
    if "ASCII" not in trick:
        assert {name.replace("posix", "os") for name in imported(TRICKS[trick])} >= {"os.system"}


@pytest.mark.parametrize("protocol", range(6))
def test_any_protocol_is_told_of(protocol: int, tmp_path: Path) -> None:
    class Harm:
        def __reduce__(self) -> object:
            return (Path.touch, (tmp_path / "witness",))

    data = pickle.dumps(Harm(), protocol)
    assert imported(data)
    with pytest.raises(Refused):
        check(data, "")
    assert not (tmp_path / "witness").exists()


def test_what_torchscript_writes_passes() -> None:
    check(pickle.dumps((1, 2.5, "a", None, True, [1], {"b": 2}, OrderedDict()), 2), "")
    check(
        b"\x80\x02c__torch__.torch.nn.modules.linear.___torch_mangle_0\nLinear\nq\x00)\x81}X\x01\x00\x00\x00wK\x01sb.",
        "",
    )
    check(b"\x80\x02ctorch.jit._pickle\nrestore_type_tag\n](K\x01eX\x09\x00\x00\x00List[int]\x86R.", "")
    check(b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n(ctorch\nFloatStorage\nX\x01\x00\x00\x000tQK\x00)R.", "")
