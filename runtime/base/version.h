/* The version of this build. */
#ifndef MJ_BASE_VERSION_H
#define MJ_BASE_VERSION_H

const char *mj_version(void); /* "0.1.0"; static storage */

#endif
