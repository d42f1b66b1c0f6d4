/* What hostile code tries in a tree that `fsview run` runs it in, and what harmless code must still be able to do.

   attacks all        each attack, as a line NAME=ERRNO; 0 if it succeeded. None does harm where it succeeds.
   attacks needs      each thing that must succeed, in the same way
   attacks type       puts the line "typed" into the input of the terminal, by each way into the kernel
   attacks descriptors    the numbers of the descriptors that were handed over
   attacks input      writes to what the standard input is, through /proc
   attacks output     makes a set-user-ID program of what the standard output is */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/bpf.h>
#include <linux/keyctl.h>
#include <linux/sched.h>
#include <linux/tiocl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/klog.h>
#include <sys/mount.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static void tell(const char *name, long result) {
  printf("%s=%d\n", name, result < 0 ? errno : 0);
  fflush(stdout);
}

static long opened(const char *path, int flags) {
  int fd = open(path, flags | O_CLOEXEC);
  if (fd >= 0) close(fd);
  return fd;
}

/* Whether anything can be read there. */
static long readable(const char *path) {
  char byte;
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  long got = fd < 0 ? -1 : read(fd, &byte, 1);
  if (got == 0) errno = ENODATA, got = -1;
  if (fd >= 0) close(fd);
  return got;
}

/* Sets the mode that is there: whether the mode could be set. */
static long mode_set(const char *path) {
  struct stat status;
  return stat(path, &status) < 0 ? -1 : chmod(path, status.st_mode & 07777);
}

/* A directory that is named by its number, whoever may get there by names. */
static long by_handle(void) {
  struct { struct file_handle head; unsigned char bytes[128]; } handle = {.head = {.handle_bytes = 128}};
  int mount, fd, home = open("/var", O_RDONLY | O_DIRECTORY);
  if (name_to_handle_at(AT_FDCWD, "/var", &handle.head, &mount, 0) < 0) return -1;
  fd = open_by_handle_at(home, &handle.head, O_RDONLY);
  close(home);
  return fd;
}

static long clock_set_to_now(void) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  return clock_settime(CLOCK_REALTIME, &now);
}

static long bpf_map(void) {
  union bpf_attr attr = {.map_type = BPF_MAP_TYPE_LPM_TRIE, .key_size = 8, .value_size = 4, .max_entries = 1,
                         .map_flags = BPF_F_NO_PREALLOC};
  return syscall(SYS_bpf, BPF_MAP_CREATE, &attr, sizeof attr);
}

/* A process of another user. */
static long other_traced(void) {
  int ready[2], status;
  char byte;
  if (pipe(ready) < 0) return -1;
  pid_t child = fork();
  if (child == 0) {
    if (setuid(1) < 0) _exit(1);
    if (write(ready[1], "x", 1) < 0) _exit(1);
    pause();
  }
  close(ready[1]);
  if (read(ready[0], &byte, 1) != 1) return errno = ECHILD, -1;
  long result = ptrace(PTRACE_ATTACH, child, 0, 0);
  int number = errno;
  kill(child, SIGKILL);
  waitpid(child, &status, 0);
  errno = number;
  return result;
}

static long in_child(long (*attack)(void)) {
  int status;
  pid_t child = fork();
  if (child == 0) _exit(attack() < 0 ? errno : 0);
  waitpid(child, &status, 0);
  errno = WIFEXITED(status) ? WEXITSTATUS(status) : ECHILD;
  return errno ? -1 : 0;
}

static long unshared(void) { return unshare(CLONE_NEWUSER); }

static long cloned(void) {
  long child = syscall(SYS_clone, CLONE_NEWUSER | SIGCHLD, 0, 0, 0, 0);
  if (child == 0) _exit(0);
  return child;
}

static long cloned3(void) {
  struct clone_args arguments = {.flags = CLONE_NEWUSER, .exit_signal = SIGCHLD};
  long child = syscall(SYS_clone3, &arguments, sizeof arguments);
  if (child == 0) _exit(0);
  return child;
}

/* ioctl as the 32-bit kernel interface has it, from a 64-bit program. */
static long ioctl32(int fd, unsigned long request, void *argument) {
#ifdef __x86_64__
  long result;
  __asm__ volatile("int $0x80" : "=a"(result) : "a"(54L), "b"((long)fd), "c"(request), "d"(argument) : "memory", "r8", "r9", "r10", "r11");
  if (result < 0) errno = -result, result = -1;
  return result;
#else
  return ioctl(fd, request, argument);
#endif
}

static long keys32(void) {
#ifdef __x86_64__
  long result;
  __asm__ volatile("int $0x80" : "=a"(result) : "a"(288L), "b"(0L), "c"((long)KEY_SPEC_USER_KEYRING), "d"(1L) : "memory", "r8", "r9", "r10", "r11");
  if (result < 0) errno = -result, result = -1;
  return result;
#else
  return syscall(SYS_keyctl, KEYCTL_GET_KEYRING_ID, KEY_SPEC_USER_KEYRING, 1);
#endif
}

static long forced_buffer(void) {
  int size = 4096, fd = socket(AF_INET, SOCK_DGRAM, 0);
  return setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof size);
}

static void all(void) {
  static char below[] = "x";
  int pair[2];
  if (pipe(pair) < 0) exit(1);
  tell("core_pattern", opened("/proc/sys/kernel/core_pattern", O_WRONLY));
  tell("modprobe", opened("/proc/sys/kernel/modprobe", O_WRONLY));
  tell("sysrq", opened("/proc/sysrq-trigger", O_WRONLY));
  tell("irq", opened("/proc/irq/default_smp_affinity", O_WRONLY));
  tell("mtrr", opened("/proc/mtrr", O_WRONLY));
  tell("kcore", readable("/proc/kcore"));
  tell("keys", readable("/proc/keys"));
  tell("timer_list", readable("/proc/timer_list"));
  tell("net_mode", mode_set("/proc/self/net/dev"));
  tell("iomem_mode", mode_set("/proc/iomem"));
  tell("fs", mode_set("/proc/fs"));
  tell("bus", mode_set("/proc/bus"));
  tell("oom", opened("/proc/self/oom_score_adj", O_WRONLY));
  tell("kmsg", opened("/proc/kmsg", O_RDONLY));
  tell("sysfs", opened("/sys/kernel/uevent_helper", O_WRONLY));
  tell("null_mode", mode_set("/dev/null"));
  tell("tty_mode", mode_set("/dev/tty"));
  tell("bubblewrap_mode", mode_set("/proc/1/exe"));
  tell("memory", opened("/dev/mem", O_RDONLY));
  tell("handle", by_handle());
  tell("character_device", mknod("/tmp/c", S_IFCHR | 0600, makedev(1, 1)));
  tell("block_device", mknod("/tmp/b", S_IFBLK | 0600, makedev(8, 0)));
  tell("clock", clock_set_to_now());
  tell("bpf", bpf_map());
  tell("mount", mount("none", "/tmp", "tmpfs", 0, NULL));
  tell("remount", mount("none", "/proc/sys", NULL, MS_REMOUNT | MS_BIND, NULL));
  tell("umount", umount2("/proc/sys", MNT_DETACH));
  tell("other_traced", other_traced());
  tell("hostname", sethostname("x", 1));
  tell("kernel_log", klogctl(8, NULL, 7));
  tell("raw_socket", socket(AF_PACKET, SOCK_RAW, 0));
  tell("network", forced_buffer());
  tell("priority", setpriority(0, 0, -5));
  tell("user_namespace", in_child(unshared));
  tell("user_namespace_clone", in_child(cloned));
  tell("user_namespace_clone3", in_child(cloned3));
  tell("keyring", syscall(SYS_keyctl, KEYCTL_GET_KEYRING_ID, KEY_SPEC_USER_KEYRING, 1));
  tell("keyring_32", in_child(keys32));
  tell("add_key", syscall(SYS_add_key, "user", "fsview", "x", 1, KEY_SPEC_PROCESS_KEYRING));
  tell("request_key", syscall(SYS_request_key, "user", "fsview", NULL, 0));
  /* A pipe would say ENOTTY: what refuses this is not the kernel's setting of TIOCSTI. */
  tell("sti", ioctl(pair[0], TIOCSTI, below));
  tell("sti_upper_half", syscall(SYS_ioctl, pair[0], 0xdead00000000 | TIOCSTI, below));
  tell("linux", ioctl(pair[0], TIOCLINUX, below));
  tell("sti_32", ioctl32(pair[0], TIOCSTI, NULL));
  tell("linux_32", ioctl32(pair[0], TIOCLINUX, NULL));
#ifdef __x86_64__
  tell("sti_x32", syscall(0x40000000 | SYS_ioctl, pair[0], TIOCSTI, below));
  tell("sti_x32_own", syscall(0x40000000 | 514, pair[0], TIOCSTI, below));
#endif
}

static long bound(void) {
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(80),
                                .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  return bind(socket(AF_INET, SOCK_STREAM, 0), (struct sockaddr *)&address, sizeof address);
}

static long other_group_and_user(void) {
  if (setgroups(0, NULL) < 0 || setresgid(33, 33, 33) < 0) return -1;
  return setresuid(33, 33, 33);
}

static long rooted(void) { return mkdir("/tmp/root", 0755) < 0 ? -1 : chroot("/tmp/root"); }

static long other_killed(void) {
  pid_t child = fork();
  if (child == 0) {
    if (setuid(1) < 0) _exit(1);
    pause();
  }
  return kill(child, SIGKILL);
}

static long session(void) { return setsid(); }

static long process(void) {
  int status;
  pid_t child = fork();
  if (child == 0) _exit(0);
  return waitpid(child, &status, 0);
}

static void needs(void) {
  int fd = open("/var/file", O_WRONLY | O_CREAT, 0600), pair[2];
  static const char capability[] = "\1\0\0\2\0\4\0\0\0\0\0\0\0\0\0\0\0\0\0\0"; /* cap_net_bind_service=ep */
  if (pipe(pair) < 0) exit(1);
  tell("process", process());
  tell("chown", fchown(fd, 33, 33));
  tell("set_user_id", fchmod(fd, 06755));
  tell("capability", syscall(SYS_fsetxattr, fd, "security.capability", capability, 20, 0));
  close(fd);
  tell("others_file", opened("/var/file", O_WRONLY));
  tell("user", in_child(other_group_and_user));
  tell("chroot", in_child(rooted));
  tell("kill", other_killed());
  tell("port", bound());
  tell("socket_node", mknod("/var/socket", S_IFSOCK | 0600, 0));
  tell("stdout", opened("/dev/stdout", O_WRONLY));
  tell("null", opened("/dev/null", O_RDWR));
  tell("random", readable("/dev/urandom"));
  tell("terminal", opened("/dev/ptmx", O_RDWR | O_NOCTTY));
  tell("new_session", in_child(session));
}

static void type(void) {
  for (const char *next = "typed\n"; *next; next++) {
    char byte = *next;
    syscall(SYS_ioctl, 0, (unsigned long)TIOCSTI, &byte);
    syscall(SYS_ioctl, 0, 0xdead00000000 | TIOCSTI, &byte);
  }
  struct { char subcode; } paste = {TIOCL_PASTESEL};
  ioctl(0, TIOCLINUX, &paste);
  fchmod(0, 0666);
  fchmod(1, 0666);
  puts("tried");
}

static void descriptors(void) {
  DIR *all = opendir("/proc/self/fd");
  for (struct dirent *each; (each = readdir(all));)
    if (each->d_name[0] != '.' && atoi(each->d_name) != dirfd(all)) printf("%s ", each->d_name);
  closedir(all);
}

int main(int count, char **words) {
  const char *what = count > 1 ? words[1] : "";
  if (!strcmp(what, "all")) all();
  else if (!strcmp(what, "needs")) needs();
  else if (!strcmp(what, "type")) type();
  else if (!strcmp(what, "descriptors")) descriptors();
  else if (!strcmp(what, "input")) {
    int fd = open("/proc/self/fd/0", O_WRONLY);
    if (write(fd, "overwritten", 11) < 0 || fchmod(0, 04755) < 0) return 1;
  } else if (!strcmp(what, "output")) {
    if (write(1, "a program\n", 10) < 0 || fchmod(1, 04755) < 0 || fchmod(2, 04755) < 0) return 1;
  } else return 2;
  return 0;
}
