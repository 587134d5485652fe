#include <stdint.h>
#include <stddef.h>
/* put keys (not 0) into an open table of size places, a power of two, empty at first; how many were new, and the probes */
uint64_t table_insert(uint64_t*places,size_t size,const uint64_t*keys,size_t n){
 uint64_t fresh=0,probes=0;size_t mask=size-1;
 for(size_t i=0;i<size;i++)places[i]=0;
 for(size_t i=0;i<n;i++){
  uint64_t key=keys[i];size_t at=(size_t)((key*0x9E3779B97F4A7C15ull)>>32)&mask;
  for(;;){probes++;uint64_t found=places[at];if(found==key)break;if(found==0){places[at]=key;fresh++;break;}at=(at+1)&mask;}
 }
 return fresh<<32|probes;
}
