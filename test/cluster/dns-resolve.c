/* Asks the C library that it is linked with for a name's IPv4 addresses, one on a line. usage: resolve NAME */
#include <arpa/inet.h>
#include <netdb.h>
#include <stdio.h>
#include <string.h>

int main(int count, char **arguments) {
  struct addrinfo hints, *list, *at;
  char text[64];
  if (count != 2) return 1;
  memset(&hints, 0, sizeof hints);
  hints.ai_family = AF_INET;
  hints.ai_socktype = SOCK_STREAM;
  int failure = getaddrinfo(arguments[1], 0, &hints, &list);
  if (failure != 0) {
    printf("error %d: %s\n", failure, gai_strerror(failure));
    return 2;
  }
  for (at = list; at != 0; at = at->ai_next)
    puts(inet_ntop(AF_INET, &((struct sockaddr_in *)at->ai_addr)->sin_addr, text, sizeof text));
  return 0;
}
