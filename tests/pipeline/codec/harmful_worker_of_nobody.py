"""The harmful worker, as a user without rights. It becomes that one itself, for another may not read this Python."""

from fcn_core.decoding.libraries import load_all
from tests.pipeline.codec.harmful_worker import become_nobody, work

if __name__ == "__main__":
    load_all()
    become_nobody()
    work()
