"""What a model may say to whoever looks at its report."""

from __future__ import annotations

SCRIPT = "<script>document.title = 'taken'</script>"
TEXTS = (
    SCRIPT,
    '<img src="http://192.0.2.1/x.png" onerror="document.title = 1"><iframe src="//192.0.2.1">',
    "</p></div></details><style>body { display: none } </style>",
    '" onmouseover="document.title = 1" x="',
    "{{ 7 * 7 }} {% raw %} &lt;b&gt; &#60;script&#62;",
    "safe \u202etxet desrever\u202c \u2066isolated\u2069 \u200bzero\u200b \x07bell \x1b[31mred",
    "\u05e9\u05dc\u05d5\u05dd \u05e2\u05d5\u05dc\u05dd, \u0645\u0631\u062d\u0628\u0627 "
    "\u4f60\u597d\u4e16\u754c \U0001f30a",
    "a" * 400 + " e" + "\u0301" * 60,
    "the sea of the old sea of the old sea of the old sea",
    "]]> --> <!-- <svg onload=alert(1)> <math> `code` $x^2$ | a | b |",
    "",
)
