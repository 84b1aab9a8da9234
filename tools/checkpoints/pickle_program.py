"""What a pickle holds, found without executing it.

Python's own unpickler imports the names that a file gives and calls them. This one only notes them: a name becomes a
Name, a call a Call, a persistent id a Reference. So nothing that a file asks for is ever imported, constructed or run,
and the classes that were pickled need not be installed.
"""

import pickletools


class PickleError(ValueError):
    """The program is damaged, or does what torch.save never writes."""


class Name(str):
    """A global, as "module.name"."""


class Call:
    """What calling `function` (a Name) would have made; `contents` are the items that were put into it afterwards."""

    def __init__(self, function, arguments):
        self.function, self.arguments, self.contents = function, arguments, {}


class Reference:
    """A persistent id: for torch a storage that lies outside the pickle."""

    def __init__(self, identity):
        self.identity = identity


def load(program):
    """The object that the program (bytes) builds. Throws PickleError."""
    machine = _Machine()
    try:
        for opcode, argument, _ in pickletools.genops(program):
            if opcode.name == "STOP":
                return machine.pop()
            if opcode.name not in _STEPS:
                raise PickleError(f"uses the pickle opcode {opcode.name}, which torch.save does not write")
            _STEPS[opcode.name](machine, argument)
    except (ValueError, LookupError, TypeError) as error:
        raise error if isinstance(error, PickleError) else PickleError(f"is not a valid pickle ({error})") from error
    raise PickleError("is not a valid pickle (it does not end)")


_MARK = object()
_PLAIN = (str, bytes, int, float, type(None))
_STEPS = {}


def _step(*opcodes):
    """Enters a method of _Machine that takes the opcode's argument."""
    def enter(method):
        _STEPS.update(dict.fromkeys(opcodes, method))
        return method
    return enter


class _Machine:
    """The stack machine of pickle. Sets become lists: they are not looked into, and what a file gives is not hashed."""

    def __init__(self):
        self.stack, self.memo = [], {}

    def pop(self):
        value = self.stack.pop()
        if value is _MARK:
            raise PickleError("is not a valid pickle (a mark stands for a value)")
        return value

    def pop_to_mark(self):
        values = []
        while (value := self.stack.pop()) is not _MARK:
            values.append(value)
        return values[::-1]

    # --- plain values, memo and stack

    @_step("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT", "STRING", "BINSTRING",
           "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BINBYTES", "SHORT_BINBYTES",
           "BINBYTES8", "BYTEARRAY8")
    def push(self, value):
        self.stack.append(value)

    @_step("NONE")
    def push_none(self, _):
        self.push(None)

    @_step("NEWTRUE")
    def push_true(self, _):
        self.push(True)

    @_step("NEWFALSE")
    def push_false(self, _):
        self.push(False)

    @_step("PROTO", "FRAME")
    def pass_over(self, _):
        pass

    @_step("PUT", "BINPUT", "LONG_BINPUT")
    def put(self, index):
        self.memo[index] = self.stack[-1]

    @_step("MEMOIZE")
    def memoize(self, _):
        self.memo[len(self.memo)] = self.stack[-1]

    @_step("GET", "BINGET", "LONG_BINGET")
    def get(self, index):
        self.push(self.memo[index])

    @_step("DUP")
    def duplicate(self, _):
        self.push(self.stack[-1])

    @_step("POP")
    def drop(self, _):
        self.stack.pop()

    @_step("POP_MARK")
    def drop_to_mark(self, _):
        self.pop_to_mark()

    @_step("MARK")
    def mark(self, _):
        self.push(_MARK)

    # --- containers

    @_step("EMPTY_LIST", "EMPTY_SET")
    def empty_list(self, _):
        self.push([])

    @_step("EMPTY_DICT")
    def empty_dict(self, _):
        self.push({})

    @_step("EMPTY_TUPLE")
    def empty_tuple(self, _):
        self.push(())

    @_step("TUPLE1")
    def tuple_of_1(self, _):
        self.push((self.pop(),))

    @_step("TUPLE2")
    def tuple_of_2(self, _):
        self.push((self.pop(), self.pop())[::-1])

    @_step("TUPLE3")
    def tuple_of_3(self, _):
        self.push((self.pop(), self.pop(), self.pop())[::-1])

    @_step("TUPLE")
    def tuple_to_mark(self, _):
        self.push(tuple(self.pop_to_mark()))

    @_step("LIST", "FROZENSET")
    def list_to_mark(self, _):
        self.push(self.pop_to_mark())

    @_step("APPEND")
    def append(self, _):
        self.extend_top([self.pop()])

    @_step("APPENDS", "ADDITEMS")
    def append_to_mark(self, _):
        self.extend_top(self.pop_to_mark())

    def extend_top(self, values):
        if isinstance(self.stack[-1], list):
            self.stack[-1].extend(values)
        elif not isinstance(self.stack[-1], Call):
            raise PickleError("is not a valid pickle (it appends to what is no list)")

    @_step("DICT")
    def dict_to_mark(self, _):
        values = self.pop_to_mark()
        self.push({})
        self.fill_top(values)

    @_step("SETITEM")
    def set_item(self, _):
        value, key = self.pop(), self.pop()
        self.fill_top([key, value])

    @_step("SETITEMS")
    def set_to_mark(self, _):
        self.fill_top(self.pop_to_mark())

    def fill_top(self, values):
        """Keys and values in turn."""
        contents = self.stack[-1].contents if isinstance(self.stack[-1], Call) else self.stack[-1]
        if not isinstance(contents, dict):
            raise PickleError("is not a valid pickle (it puts items into what is no dictionary)")
        for key, value in zip(values[::2], values[1::2], strict=True):
            contents[key if isinstance(key, _PLAIN) else Call("key", (key,))] = value

    # --- what would import and call

    @_step("GLOBAL")
    def name(self, pair):
        self.push(Name(pair.replace(" ", ".")))

    @_step("STACK_GLOBAL")
    def name_from_stack(self, _):
        name, module = self.pop(), self.pop()
        self.push(Name(f"{module}.{name}"))

    @_step("REDUCE", "NEWOBJ")
    def call(self, _):
        arguments, function = self.pop(), self.pop()
        if function == "collections.OrderedDict" and arguments in ((), ([],)):  # a state_dict's beginning
            self.push({})
        else:
            self.push(Call(function, arguments))

    @_step("NEWOBJ_EX")
    def call_with_keywords(self, _):
        self.pop()
        self.call(None)

    @_step("OBJ")
    def call_to_mark(self, _):
        function, *arguments = self.pop_to_mark()
        self.push(Call(function, tuple(arguments)))

    @_step("INST")
    def call_by_name(self, pair):
        self.push(Call(Name(pair.replace(" ", ".")), tuple(self.pop_to_mark())))

    @_step("BUILD")
    def leave_state_unset(self, _):
        self.pop()

    @_step("PERSID", "BINPERSID")
    def reference(self, identity):
        self.push(Reference(self.pop() if identity is None else identity))
