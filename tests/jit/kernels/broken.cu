// mj:template broken
// mj:doc Does not compile: line 9 misses a semicolon. For the tests of the JIT.
// mj:family cpu cuda
// mj:kernel broken
// mj:args MjBalanceArgs
// mj:param EXPERTS fixed min:1

MJ_KERNEL(broken, MjBalanceArgs) {
    args->bias[0] = (float)EXPERTS +
}
