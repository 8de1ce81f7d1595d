//! A real VPS: Debian with systemd and cgroup v2, reached over OpenSSH, with Apache httpd from a real registry.

mod bad_input;
mod story;
mod sudo;
