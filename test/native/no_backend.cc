// A shared library that is no backend, for registry_test.
extern "C" int cqil_no_backend() { return 0; }
