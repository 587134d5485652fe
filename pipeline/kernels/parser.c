#include <stdint.h>
#include <stddef.h>
/* sums of products of decimal and 0x numbers, parted by ; and blanks; a bad byte ends it: all values mixed, and where it ended */
uint64_t parse_sums(const uint8_t*s,size_t n){
 uint64_t mixed=0,sum=0,product=1,sign=0;size_t i=0;
 for(;;){
  while(i<n&&(s[i]==' '||s[i]=='\n'))i++;
  if(i>=n)break;
  uint64_t v=0;
  if(s[i]=='0'&&i+1<n&&s[i+1]=='x'){
   i+=2;
   while(i<n){
    uint8_t c=s[i];uint64_t d;
    if(c>='0'&&c<='9')d=c-'0';else if(c>='a'&&c<='f')d=c-'a'+10;else break;
    v=v<<4|d;i++;
   }
  }else{
   if(s[i]<'0'||s[i]>'9')break;
   while(i<n&&s[i]>='0'&&s[i]<='9'){v=v*10+(s[i]-'0');i++;}
  }
  product*=v;
  while(i<n&&s[i]==' ')i++;
  uint8_t mark=i<n?s[i]:';';
  i++;
  if(mark=='*')continue;
  sum=sign?sum-product:sum+product;product=1;sign=0;
  if(mark=='+')continue;
  if(mark=='-'){sign=1;continue;}
  if(mark!=';')break;
  mixed=mixed*31+sum;sum=0;
 }
 return mixed^(uint64_t)i<<48;
}
