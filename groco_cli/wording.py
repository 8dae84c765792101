"""How numbers are put into what groco says."""


def counted(count: int, thing: str, things: str = "") -> str:
    """So many of a thing.

    >>> counted(1, "image"), counted(2874, "image"), counted(0, "class", "classes")
    ('1 image', '2,874 images', '0 classes')

    Args:
        count: How many.
        thing: What one is called.
        things: What several are called, where that is not with an s.
    """
    return f"{count:,} {thing if count == 1 else things or thing + 's'}"
