#include <stdint.h>
#include <stddef.h>
/* count the characters of UTF-8 text with a state machine; all ones for text that is not UTF-8 */
uint64_t utf8_count(const uint8_t*s,size_t n){
 unsigned state=0;uint64_t count=0;
 for(size_t i=0;i<n;i++){
  uint8_t c=s[i];
  switch(state){
  case 0:
   if(c<0x80)count++;else if(c<0xc2)return ~0ull;else if(c<0xe0)state=1;else if(c==0xe0)state=4;
   else if(c==0xed)state=5;else if(c<0xf0)state=2;else if(c==0xf0)state=6;else if(c<0xf4)state=3;else if(c==0xf4)state=7;else return ~0ull;
   break;
  case 1: if((c&0xc0)!=0x80)return ~0ull;state=0;count++;break;
  case 2: if((c&0xc0)!=0x80)return ~0ull;state=1;break;
  case 3: if((c&0xc0)!=0x80)return ~0ull;state=2;break;
  case 4: if(c<0xa0||c>0xbf)return ~0ull;state=1;break;
  case 5: if(c<0x80||c>0x9f)return ~0ull;state=1;break;
  case 6: if(c<0x90||c>0xbf)return ~0ull;state=2;break;
  default: if(c<0x80||c>0x8f)return ~0ull;state=2;break;
  }
 }
 return state?~0ull:count;
}
