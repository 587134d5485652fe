#include <stdint.h>
#include <stddef.h>
/* how often a pattern of 1 to 255 bytes occurs (Horspool) */
uint64_t search_count(const uint8_t*text,size_t n,const uint8_t*pattern,size_t m){
 uint8_t skip[256];uint64_t found=0;
 for(size_t i=0;i<256;i++)skip[i]=(uint8_t)m;
 for(size_t i=0;i+1<m;i++)skip[pattern[i]]=(uint8_t)(m-1-i);
 size_t at=0;
 while(at+m<=n){
  size_t k=m;
  while(k>0&&text[at+k-1]==pattern[k-1])k--;
  if(k==0)found++;
  at+=skip[text[at+m-1]];
 }
 return found;
}
