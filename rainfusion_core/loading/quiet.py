"""What diffusers and transformers would print by themselves, between the lines that a program prints on purpose."""


def quiet() -> None:
    """Leave out their progress bars and hints, those that come with an import among them."""
    import diffusers
    import transformers

    for library in (diffusers, transformers):
        library.utils.logging.disable_progress_bar()
        library.utils.logging.set_verbosity_error()
