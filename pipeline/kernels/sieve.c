#include <stdint.h>
#include <stddef.h>
/* primes below n; flags has n bytes */
uint64_t sieve(uint8_t*flags,size_t n){
 uint64_t count=0;
 for(size_t i=0;i<n;i++)flags[i]=1;
 for(size_t i=2;i<n;i++)if(flags[i]){count++;for(size_t j=i*i;j<n;j+=i)flags[j]=0;}
 return count;
}
