"""Hostile text in places where the provider reads its own: each has broken a reader, or could."""

DEEP_LIST, DEEP_OBJECT = "[" * 1200, '{"a":' * 1200
LONG_NUMBER = '{"provider": "1", "payload": ' + "9" * 5000 + "}"
WRONG_TYPES = '{"provider": {}, "payload": [1], "dag_id": 1e999, "task_id": NaN, "comment": {"a": []}}'
HALF_A_CHARACTER = '{"provider": "\\ud800", "payload": "\\udfff", "comment": "\\ud800"}'
COMMENTS = {
    "deep list": DEEP_LIST,
    "deep object": DEEP_OBJECT,
    "long number": LONG_NUMBER,
    "wrong types": WRONG_TYPES,
    "half a character": HALF_A_CHARACTER,
    "list": "[1]",
    "unfinished": "{",
    "null": "null",
}
