"""What a person writes into the form fields of a notebook's cell."""
import re


def fill_in(code: str, **form: object) -> str:
    """`code` with other values in its fields; what is said behind them, such as `# @param`, stays."""
    for field, value in form.items():
        code = re.sub(rf"^{field} = .*?(?= *(?:#|$))", f"{field} = {value!r}".replace("\\", r"\\"), code, flags=re.MULTILINE)
    return code
