from lmx_kept import HEADER

from lmx_kernel.testing.conformance.authoriser import AuthoriserConformance, check_refused


class TestKept(AuthoriserConformance):
    module = "lmx_kept"
    allowed = {HEADER: "Open, sesame"}  # noqa: RUF012

    def config(self, folder):
        return '[kept]\npassword = "Open, sesame"'


class TestWithoutPassword(TestKept):
    allowed = {}  # noqa: RUF012

    def config(self, folder):
        return ""

    def test_it_lets_pass(self, authorise):
        check_refused(authorise, {HEADER: ""})

    test_other_headers_do_not_matter = test_it_remembers_nothing = test_it_lets_pass
    test_the_client_and_the_key_do_not_open = test_it_lets_pass
